# Each target is one script, for people and for CI alike; the scripts say more and take options.
.PHONY: demo down test lint bench

demo:
	@scripts/demo

down:
	@scripts/down

test:
	@scripts/test

lint:
	@scripts/lint

bench:
	@scripts/bench
