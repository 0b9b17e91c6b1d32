PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Nobody watches a progress bar here; threads that wait should soon sleep (tools/chapters.py).
export TLBOOK_PROGRESS := 0
export GOMP_SPINCOUNT := 10000

.PHONY: install install-newest book test check refresh chapter bench wheel chapters-from-wheel set-repo clean

install: $(READY)

$(READY): requirements.txt
	$(PYTHON) tools/install.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

# What a reader gets who installs today: the ranges of pyproject.toml in place of the pins.
install-newest:
	$(PYTHON) tools/install.py --newest $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

book: $(READY)
	$(BIN)/python -m tools.execute
	$(BIN)/jupyter-book build . -W -n --keep-going -q
	$(BIN)/python -m tools.check_site _build/html

test: $(READY)
	$(BIN)/pytest --nbval

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m tools.rules

refresh: $(READY)
	$(BIN)/python -m tools.refresh $(CHAPTERS)

chapter: $(READY)
	$(BIN)/python -m tools.new_chapter $(NAME) "$(TITLE)"

bench: $(READY)
	$(BIN)/python -m benchmarks.run

wheel: $(READY)
	$(BIN)/python -m build --wheel --no-isolation -o dist

chapters-from-wheel: $(READY)
	$(BIN)/python -m tools.run_from_wheel

set-repo: $(READY)
	$(BIN)/python -m tools.set_repo $(URL)

clean:
	rm -rf _build build dist *.egg-info
