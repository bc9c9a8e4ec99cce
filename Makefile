# Each target is one script, for people and for CI alike; the scripts say more and take options.
.PHONY: demo up down test lint bench

demo:
	@scripts/demo

up:
	@scripts/up

down:
	@scripts/down

test:
	@scripts/test

lint:
	@scripts/lint

bench:
	@scripts/bench
