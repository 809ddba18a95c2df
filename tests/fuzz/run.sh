#!/usr/bin/env bash
# Runs every fuzz target for some seconds on a corpus that grows beside the build.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
build=$1 seconds=$2 bad=0

for prog in "$build"/fuzz/fuzz_*; do
	[[ -x $prog && $prog != *.d ]] || continue
	name=${prog##*/}
	mkdir -p "$build/corpus/$name"
	if "$prog" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -verbosity=0 \
		-artifact_prefix="$build/$name-" "$build/corpus/$name" >"$build/$name.log" 2>&1; then
		echo "ok $name # $(find "$build/corpus/$name" -type f | wc -l) inputs in the corpus"
	else
		echo "not ok $name # $build/$name.log"
		tail -n 30 "$build/$name.log"
		bad=1
	fi
done
exit $bad
