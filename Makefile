# Two commands: `make lab` opens the course, `make test` checks everything. Both set up what they
# need in .venv on first use. For another Python: make PYTHON=python3.12 lab

PYTHON ?= python3
BIN := .venv/bin
ready := .venv/ready
settings := .venv/share/jupyter/lab/settings/overrides.json
no_news := {"@jupyterlab/apputils-extension:notification": \
  {"checkForUpdates": false, "fetchNews": "false"}}
jupyter := $(BIN)/jupyter lab --ServerApp.ip=127.0.0.1
ifeq ($(shell id -u),0)
jupyter += --allow-root
endif

.PHONY: lab test html handout notebooks lint results bank paper

lab: $(ready)
	$(jupyter) --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/00_start_here.ipynb

test: $(ready)
	@$(BIN)/python tests/browser/chromium.py || $(BIN)/playwright install chromium
	$(BIN)/python -m pytest

html: $(ready)  ## write a page of the recorded runs with switches that need no kernel
	$(BIN)/lucir-edu report data/bank/glyphs-b50-5 --html html/glyphs-b50-5.html

handout: $(ready)  ## write the notebooks without solutions and outputs, for a class
	$(BIN)/python notebooks/sources/build.py --handout handout

notebooks: $(ready)  ## run the sources and write the notebooks
	$(BIN)/python notebooks/sources/build.py

lint: $(ready)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

run := $(BIN)/lucir-edu sweep glyphs-b50-5 --out runs/glyphs-b50-5 --processes 2
results: $(ready)  ## recompute the recorded runs on Glyphs-100
	$(run) --seeds 5 --grid cosine,less_forget,margin_ranking
	$(run) --seeds 5 --grid method=finetune,icarl,frozen,joint
	$(run) --seeds 5 --set method=cosine --grid imprint=false
	$(run) --seeds 3 --set method=cosine --set score_distillation=true
	$(run) --seeds 3 --grid lambda_rule=paper
	$(run) --seeds 3 --grid freeze_old_embeddings=false
	$(run) --seeds 3 --set method=replay --set less_forget=true --grid freeze_old_embeddings=false
	$(run) --seeds 3 --grid method=lucir,replay --set balanced_finetune=true
	$(run) --seeds 2 --grid method=lucir,replay --grid exemplars_per_class=1,20
	$(BIN)/lucir-edu report runs/glyphs-b50-5 --html runs/glyphs-b50-5.html

questions := $(BIN)/lucir-edu sweep glyphs-b50-5 --out runs/questions --processes 2 --seeds 1
bank: results  ## copy the base networks that the notebooks start from, and the bank
	$(questions) --grid weight_decay=0.005
	$(questions) --grid method=cosine+lf,lucir --grid lambda_base=20,80
	$(questions) --set base_classes=10 --grid cosine,less_forget,margin_ranking
	$(BIN)/python notebooks/sources/bank.py runs/glyphs-b50-5
	$(BIN)/python notebooks/sources/bank.py --add questions runs/questions

DATA ?= data
SCHEDULE ?= full
PROCESSES ?= 1
full :=
short := --set epochs=30 --set schedule=linear --set warmup=0.15
cifar := runs/cifar100-$(SCHEDULE)
protocol = $(BIN)/lucir-edu sweep $(1) --data-root $(DATA) --bases $(cifar) --out $(cifar)/$(1) \
  $($(SCHEDULE)) --processes $(PROCESSES) --grid order_seed=1993,1,2
paper: $(ready)  ## the paper's protocols on CIFAR-100: three orders, several methods; calls for a GPU
	$(if $(filter full short,$(SCHEDULE)),,$(error SCHEDULE=$(SCHEDULE) is neither full nor short))
	mkdir -p $(cifar)
	$(call protocol,cifar100-b50-5) --grid method=lucir,cosine+lf,cosine,frozen,replay,icarl,finetune,joint
	$(call protocol,cifar100-2tasks) --grid method=lucir,icarl,replay
	$(call protocol,cifar100-b50-10) --grid method=lucir,icarl,replay
	$(call protocol,cifar100-b50-1) --grid method=lucir,icarl
	$(call protocol,cifar100-5tasks) --grid method=lucir
	$(call protocol,cifar100-b50-2) --grid method=lucir
	$(call protocol,cifar100-b50-25) --grid method=lucir
	$(call protocol,cifar100-b50-5) --set method=replay --set less_forget=true --grid margin_ranking
	$(call protocol,cifar100-b50-5) --set method=replay --set margin_ranking=true --grid cosine
	$(call protocol,cifar100-b50-5) --set method=cosine --set score_distillation=true
	$(call protocol,cifar100-b50-5) --set adaptive_lambda=false
	$(call protocol,cifar100-b50-5) --set imprint=false
	$(call protocol,cifar100-b50-5) --set balanced_finetune=true
	$(call protocol,cifar100-b50-10) --set adaptive_lambda=false
	$(call protocol,cifar100-b50-5) --grid top_k=1,5
	$(call protocol,cifar100-b50-5) --grid margin=0.3,0.7
	$(call protocol,cifar100-b50-5) --grid exemplars_per_class=1,5,10,50

$(ready): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 lab"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[lab,test]"
	@mkdir -p $(dir $(settings)) && echo '$(no_news)' > $(settings)
	@touch $@
