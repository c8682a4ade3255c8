"""Mistakes that a notebook's cells must notice: a sign or a constant in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NotebookMutant:
    """One mistake.

    Args:
        notebook: that must turn red.
        file: of the package.
        old, new: the text that is there exactly once, and what replaces it.
    """

    notebook: str
    file: str
    old: str
    new: str

    @property
    def name(self) -> str:
        return f"{self.notebook[:9]}: {self.old} -> {self.new}".replace(" ", "_")


IMBALANCE, COSINE = "solved/01_the_imbalance_problem", "solved/02_cosine_normalization"
LESS_FORGET, MARGIN = "solved/03_less_forget_constraint", "solved/04_margin_ranking"
OBJECTIVE, PAPER = "solved/05_the_full_objective", "06_reproducing_the_paper"

# Code cells that train, and those that need them, are left out where no mistake below is noticed by
# them; so is what comes after the last cell that notices one.
LEFT_OUT = {
    COSINE: {26, 27, 28},
    IMBALANCE: {12, 13, 14, 15, 19, 20, 21, 22, 23, 24, 25, 26},
    LESS_FORGET: {5, 6},
    MARGIN: {4, 5, 6},
    OBJECTIVE: {6, 7, 8, 10, 11, 12, 16},
}
LAST = {IMBALANCE: 29, COSINE: 33, LESS_FORGET: 18, MARGIN: 11, OBJECTIVE: 41, PAPER: 10}

MUTANTS = [
    NotebookMutant(notebook, file, old, new)
    for notebook, file, pairs in (
        (LESS_FORGET, "losses.py", [
            # L_dis^G
            ("(1 - (unit(features)", "(1 + (unit(features)"),
            ("(1 - (unit(features)", "(2 - (unit(features)"),
            ("(unit(features) * unit(old_features", "(features * unit(old_features"),
            ("detach())).sum(dim=1)).mean()", "detach())).sum(dim=1)).sum()"),
            # lambda
            ("base * math.sqrt(", "-base * math.sqrt("),
            ("base * math.sqrt(_choose(ratios, rule=rule))", "base * _choose(ratios, rule=rule)"),
            ('{"code": num_old / num_new, "paper": num_new / num_old}',
             '{"paper": num_old / num_new, "code": num_new / num_old}'),
            # L_dis^C
            ("(cosines_old - teacher_cosines", "(cosines_old + teacher_cosines"),
            (".square().sum(dim=1).mean()", ".square().mean(dim=1).mean()"),
            # distillation of probabilities
            ("weight * temperature**2 * divergence", "-weight * temperature**2 * divergence"),
            ("temperature: float = 2.0", "temperature: float = 1.0"),
            ("weight: float = 0.25", "weight: float = 0.5"),
        ]),
        (MARGIN, "losses.py", [
            ("(margin - truth + hardest)", "(margin + truth + hardest)"),
            ("(margin - truth + hardest)", "(margin - truth - hardest)"),
            ("(margin - truth + hardest)", "(-margin - truth + hardest)"),
            ("margin: float = 0.5", "margin: float = 0.4"),
            ("top_k: int = 2", "top_k: int = 1"),
            (".clamp(min=0)  # (n, K)", ".clamp(min=0.1)  # (n, K)"),
            ('{"code": hinges.mean(dim=1), "paper": hinges.sum(dim=1)}',
             '{"paper": hinges.mean(dim=1), "code": hinges.sum(dim=1)}'),
            ("is_old = (targets < num_old)", "is_old = (targets >= num_old)"),
        ]),
        (COSINE, "losses.py", [
            ("return unit(features) @ unit(weight).T", "return -unit(features) @ unit(weight).T"),
            ("return unit(features) @ unit(weight).T", "return features @ unit(weight).T"),
        ]),
        (COSINE, "model.py", [
            ("self.eta * cosines", "-self.eta * cosines"),
            ("nn.Parameter(torch.ones(()))", "nn.Parameter(2 * torch.ones(()))"),
            ("features @ self.weight.T + self.bias", "features @ self.weight.T - self.bias"),
            ("num_new) * old_weight.norm(", "num_new) / old_weight.norm("),
            ("num_new) * old_weight.norm(", "num_new) * -old_weight.norm("),
        ]),
        (OBJECTIVE, "trainer.py", [
            ("= weight * losses.less_forget(", "= -weight * losses.less_forget("),
            ("= config.margin_weight * losses", "= -config.margin_weight * losses"),
            ("F.cross_entropy(output.logits, targets)", "F.cross_entropy(output.cosines, targets)"),
        ]),
        (OBJECTIVE, "memory.py", [
            ("return unit(sums.index_add_(0, labels, unit(features)))",
             "return unit(sums.index_add_(0, labels, features))"),
            ("torch.inf).argmax(dim=1)", "torch.inf).argmin(dim=1)"),
        ]),
        (IMBALANCE, "memory.py", [
            ("(features @ direction).argmax()", "(features @ direction).argmin()"),
            ("direction = direction + mean - features[best]",
             "direction = direction + mean + features[best]"),
        ]),
        (IMBALANCE, "metrics.py", [
            ("old_to_new=share(~to_old, is_old)", "old_to_new=share(to_old, is_old)"),
            ("new_to_old=share(to_old, ~is_old)", "new_to_old=share(~to_old, ~is_old)"),
        ]),
        (PAPER, "metrics.py", [
            ("matrix[group:end, group].max()", "matrix[group:end, group].min()"),
            (".max() - matrix[end, group]", ".max() + matrix[end, group]"),
            ("return float(np.mean(_not_empty(phase_accuracies)))",
             "return float(np.mean(_not_empty(phase_accuracies)[1:]))"),
            ("return float(_not_empty(phase_accuracies)[-1])",
             "return float(_not_empty(phase_accuracies)[0])"),
        ]),
        (PAPER, "stream.py", [("seed: int | None = 1993", "seed: int | None = 1994")]),
        (PAPER, "config.py", [
            ("lambda_base: float = 5.0", "lambda_base: float = 4.0"),
            ("top_k: int = 2", "top_k: int = 1"),
            ("margin: float = 0.5", "margin: float = 0.4"),
        ]),
    )
    for old, new in pairs
]  # fmt: skip
