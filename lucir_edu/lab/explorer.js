// The explorer of a page, without a kernel: looks up drawings that Python has made.

async function explore(section, followsAddress) {
  const packed = section.querySelector("script[type='application/gzip']").textContent;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bank = JSON.parse(await new Response(unpacked).text());
  const find = (name) => section.querySelector(`[data-part=${name}]`);
  const sides = ["A", "B"].map((name) => ({
    name,
    box: find(name),
    switches: [...find(name).querySelectorAll("input")],
    other: find(name).querySelector("select"),
    plot: find("plot" + name),
    words: find("words" + name),
  }));
  const [compare, view, phase, seed] = ["compare", "view", "phase", "seed"].map(find);
  const menus = ["row", "column"].map(find);  // of a matrix
  const pictures = new Map(Object.entries(bank.pictures));  // a class may be called constructor
  let matrices = [];  // that are shown, each with its side's name

  const combination = (on) =>
    bank.shorts.map((short, i) => (on[i] ? "+" : "-") + short).join("").replace(/^\+/, "");
  const shorts = bank.shorts.join("|");
  const isCombination = (name) => new RegExp(`^[+-]?(${shorts})([+-](${shorts}))*$`).test(name);
  const setting = (side) =>
    side.other.value || combination(side.switches.map((box) => box.checked));

  function choose(side, name) {
    const others = [...side.other.options].map((option) => option.value);
    side.other.value = others.includes(name) ? name : "";
    if (!side.other.value)
      side.switches.forEach((box, i) => {
        box.checked = new RegExp(`(^|\\+)${bank.shorts[i]}(?!\\w)`).test(name);
      });
  }

  // What a string names, as parse() of explorer.py reads it; throws a sentence if it is wrong.
  function parse(state) {
    const named = {};
    for (const part of state.replace(/^[\s"'#]+|[\s"'#]+$/g, "").split("/").filter(Boolean)) {
      const number = /^(seed|phase)(\d{1,9})$/.exec(part);
      let [kind, value] = number ? [number[1], Number(number[2])] : ["view", part];
      if (!number && !Object.hasOwn(bank.views, part)) {
        [kind, value] = ["setting", part.split("~").map((name) => name.replaceAll(",", " "))];
        if (value.length > 2) throw `${part} names more than two settings; write A~B.`;
        for (const name of value) {
          if (!name) throw `${part} lacks a setting beside the ~.`;
          const parts = name.match(/\w+/g);
          if (!isCombination(name)) {
            if (!Object.hasOwn(bank.seeds, name)) throw `${name} is not recorded.`;
          } else if (new Set(parts).size < parts.length) throw `${name} names a component twice.`;
        }
      }
      if (Object.hasOwn(named, kind)) throw `${state} names several ${kind}s.`;
      named[kind] = value;
    }
    return named;
  }

  function takeAndShow(state) {
    let named;
    try {
      named = parse(state);
    } catch (problem) {
      if (problem instanceof Error) throw problem;
      show();
      sides[0].words.textContent = problem;
      return;
    }
    const asked = { seed: Number(seed.value || 0), phase: Number(phase.value), ...named };
    if (asked.setting) {
      compare.checked = asked.setting.length > 1;
      asked.setting.forEach((name, i) => choose(sides[i], name));
    }
    view.value = asked.view ?? view.value;
    phase.max = asked.phase;  // show() knows how many there are
    phase.value = asked.phase;
    seed.dataset.wanted = asked.seed;
    if (show() && (Number(seed.value) !== asked.seed || Number(phase.value) !== asked.phase))
      sides[0].words.textContent += ` (Seed ${asked.seed}, phase ${asked.phase}: not recorded.)`;
  }

  function write(figures) {
    const cell = (value) => (value === null ? "–" : value.toFixed(1));
    const rows = Object.keys(figures[0]).map((name) => {
      const values = figures.map((one) => one[name]);
      const cells = values.map(cell);
      if (values.length === 2)
        cells.push(values.includes(null) ? "–" : (values[1] - values[0] >= 0 ? "+" : "")
          + (values[1] - values[0]).toFixed(1));
      return [name, ...cells];
    });
    const heads = figures.length === 2 ? ["", "A", "B", "B − A"] : ["", ""];
    const line = (cells, tag) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => {
        const one = document.createElement(tag);
        one.textContent = text;
        return one;
      }));
      return row;
    };
    find("table").replaceChildren(line(heads, "th"), ...rows.map((row) => line(row, "td")));
  }

  // Whether two plots fit side by side.
  const roomy = () => !compare.checked && section.clientWidth > 640;

  function align(layouts) {
    const titles = new Set(layouts.map((layout) => layout.annotations.at(-1).text));
    for (const axis of ["xaxis", "yaxis", "xaxis2", "yaxis2"]) {
      if (axis === "yaxis2" && titles.size > 1) continue;  // a bias is not a mean logit
      const ranges = layouts.map((layout) => layout[axis]?.range).filter(Boolean);
      if (!ranges.length) continue;
      const all = [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))];
      layouts.forEach((layout) => (layout[axis].range = all));
    }
  }

  // Both classes of a matrix's cell, and what it says; as cell() of views.py puts it.
  function showCell() {
    const [row, column] = menus.map((menu) => menu.value);
    find("hovered").replaceChildren();
    if (!row || !column || !matrices.length) return;
    find("hovered").innerHTML = [row, column].map((name) => pictures.get(name) ?? "").join(" ");
    find("hovered").append(" " + matrices.map(([name, { x, y, z, hovertemplate }]) =>
      (matrices.length === 2 ? name + ": " : "") + hovertemplate.replace("<extra></extra>", "")
        .replace("%{z}", z[y.indexOf(row)][x.indexOf(column)])
        .replace("%{y}", () => row).replace("%{x}", () => column)).join("; "));
  }

  // Draws what the controls say; false where it is not recorded, which is then said.
  function show() {
    const shown = compare.checked ? sides : sides.slice(0, 1);
    const settings = shown.map(setting);
    sides.forEach((side) => {
      side.switches.forEach((box) => (box.disabled = side.other.value !== ""));
      side.box.hidden = side.plot.hidden = side.words.hidden = !shown.includes(side);
    });
    const missing = settings.find((name) => !Object.hasOwn(bank.seeds, name));
    if (missing) {
      sides[0].words.textContent = `${missing} is not recorded.`;
      return false;
    }
    const seeds = bank.seeds[settings[0]].filter((one) =>
      settings.every((name) => bank.seeds[name].includes(one)));
    if (!seeds.length) {
      compare.checked = false;
      show();
      sides[0].words.textContent = `${settings.join(" and ")} have no seed in common.`;
      return false;
    }
    const wanted = Number(seed.dataset.wanted ?? (seed.value || 0));
    delete seed.dataset.wanted;
    const nearest = seeds.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    seed.replaceChildren(...seeds.map((one) => new Option(one, one, false, one === nearest)));
    const runs = settings.map((name) => bank.runs[`${name}/${nearest}`]);
    phase.max = Math.min(...runs.map((run) => run.figures.length)) - 1;
    find("phaseShown").textContent = phase.value;
    const drawings = runs.map((run) => run.drawings[view.value][phase.value]);
    const layouts = drawings.map(([, wide, narrow]) =>
      structuredClone({ ...(roomy() ? wide : narrow), template: bank.template }));
    align(layouts);
    if (shown.length === 2)
      layouts.forEach(({ annotations: [title] }, i) =>
        (title.text = `<b>${shown[i].name}</b>: ${title.text}`));
    runs.forEach((_, i) => {
      const [side, layout, [traces, , , words]] = [shown[i], layouts[i], drawings[i]];
      layout.width = side.plot.clientWidth;  // plotly's own way of resizing forgets it, or the height
      Plotly.react(side.plot, traces, layout, { displayModeBar: false });
      side.plot.removeAllListeners("plotly_hover");
      side.plot.on("plotly_hover", ({ points: [point] }) => {
        const offered = [...menus[0].options].map((option) => option.value);
        if (point.data.type !== "heatmap" || ![point.y, point.x].every((n) => offered.includes(n)))
          return;
        [menus[0].value, menus[1].value] = [point.y, point.x];
        showCell();
      });
      side.plot.setAttribute("aria-label", words);
      side.words.textContent = (shown.length === 2 ? side.name + ": " : "") + words;
    });
    matrices = bank.views[view.value] ? drawings.map(([[matrix]], i) => [shown[i].name, matrix]) : [];
    find("cells").hidden = !matrices.length;
    for (const menu of matrices.length ? menus : []) {
      const [chosen, names] = [menu.value,
        matrices[0][1].x.filter((name) => matrices.every(([, { x }]) => x.includes(name)))];
      menu.replaceChildren(new Option("–", ""), ...names.map((name) => new Option(name, name)));
      menu.value = names.includes(chosen) ? chosen : "";
    }
    showCell();
    write(runs.map((run) => run.figures[phase.value]));
    const names = settings.map((name) => name.replaceAll(" ", ","));
    const state = `${names.join("~")}/seed${nearest}/phase${phase.value}/${view.value}`;
    find("link").value = state;
    try {
      if (followsAddress) history.replaceState(null, "", "#" + state);
    } catch { /* a page inside another one has no address of its own */ }
    return true;
  }

  find("link").addEventListener("change", (event) => takeAndShow(event.target.value));
  let width = 0;
  new ResizeObserver(() => {
    if (width && width !== section.clientWidth) show();
    width = section.clientWidth;
  }).observe(section);
  section.addEventListener("input", ({ target }) => {
    if (menus.includes(target)) showCell();
    else if (target !== find("link")) show();
  });
  function address() {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
      return "";  // a lone % means nothing
    }
  }

  const asked = followsAddress ? address() : "";  // before the first view takes its place
  if (followsAddress) window.addEventListener("hashchange", () => takeAndShow(address()));
  section.hidden = false;
  takeAndShow(bank.first);
  if (asked) takeAndShow(asked);
}

document.querySelectorAll("section.explorer").forEach((section, i) =>
  explore(section, i === 0).catch((error) => {
    section.hidden = false;
    section.textContent = `The switches do not work in this browser (${error.message}).`;
    throw error;
  }));
