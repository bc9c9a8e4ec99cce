# Each target is one script, for people and for CI alike; the scripts say more and take options.
.PHONY: demo up down backup test lint bench

demo:
	@scripts/demo

up:
	@scripts/up

down:
	@scripts/down

backup:
	@scripts/backup

test:
	@scripts/test

lint:
	@scripts/lint

bench:
	@scripts/bench
