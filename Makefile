# The commands of a contributor; .ci/run calls the same. Tools are those of the active environment.
.PHONY: check test slow families rest docs site pictures dist pythons

check: # linter, formatting, types
	ruff check .
	ruff format --check .
	mypy

test: # the fast tier
	pytest

slow: # the other tier: minutes
	pytest -m slow

rest: # both tiers that are not fast, in one run
	pytest -m "slow or families"

families: # every architecture that TransformerLens lists, against plain Hugging Face: minutes
	pytest -m families

docs: # the pages that are written from the source
	python scripts/make_api.py
	python scripts/make_messages.py

site: # the documentation site, built strictly and opened in Chromium
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet
	python scripts/check_site.py

pictures: # docs/images, with Chromium
	python scripts/make_pictures.py

dist: # source archive and wheel, checked
	python scripts/check_dist.py

pythons: # installation and a smoke test with every Python at hand
	python scripts/check_pythons.py
