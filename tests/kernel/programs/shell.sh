# bash: pipes, globs, here-documents, process substitution, job control, traps, coprocesses.
set -u
mkdir -p d/{a,b}/c && touch d/a/{1,2,3}.txt d/b/x.log 'd/with space'
echo d/*/*.txt d/**/c
shopt -s globstar nullglob extglob dotglob
echo d/**/*.@(txt|log) nothing*
printf '%s\n' d/a/*.txt | sed 's/.*\///' | tr '\n' ' ' | rev; echo
cat <<END | grep -c line
line one $((1 + 1))
line two $(echo nested "$(echo deeper)")
END
cat <<'END'
$not expanded
END
read -r first <<< "a here string"; echo "$first"
diff <(printf 'a\nb\n') <(printf 'a\nc\n'); echo "diff $?"
tee >(wc -c >counted) <<< "to a process" >/dev/null
until [ -s counted ]; do :; done; cat counted
echo appended >> out; echo more >> out; exec 3< out; read -r line <&3; echo "fd 3: $line"; exec 3<&-
{ echo to stdout; echo to stderr >&2; } 2>&1 | sort
exec 5<> d/rw; echo through five >&5; exec 5>&-; cat d/rw
set -o noclobber; (echo no > out) 2>/dev/null || echo "noclobber"; set +o noclobber
false | true; echo "pipestatus ${PIPESTATUS[*]}"
(exit 7); echo "subshell $?"
function f { local x=$1; echo "function $x"; return 3; }; f arg; echo $?
declare -A map=([k]=v); echo "${map[k]}" "${!map[@]}"
trap 'echo "trapped USR1"' USR1; kill -USR1 $$
for i in 1 2 3; do (echo "child $i"; exit "$i") & wait $!; echo "waited $?"; done
set -m
sleep 100 & sleep 101 &
jobs | sed 's/  */ /g'
kill %1; wait %1; echo "job one $?"
kill -STOP %2; until [ "$(jobs -s | wc -l)" = 1 ]; do :; done; jobs | cut -c1-11
kill -CONT %2; kill -KILL %2; wait %2 2>/dev/null; echo "job two $?"
(sleep 0; exit 5) & fg %+ >/dev/null; echo "foreground $?"
set +m
coproc CO { while read -r x; do echo "co $x"; done; }
echo ping >&"${CO[1]}"; read -r answer <&"${CO[0]}"; echo "$answer"; eval "exec ${CO[1]}>&-"; wait
mkfifo pipe; (echo through a fifo > pipe) & cat pipe; wait
command -v no-such-command || echo "no such command"
no-such-command 2>/dev/null; echo "status $?"
./d/a/1.txt 2>/dev/null; echo "not executable $?"
/nonexistent/program 2>/dev/null; echo "missing $?"
printf '#!/bin/bash\necho "script $0 $*"\n' > script; chmod +x script; ./script a b
printf '#!/usr/bin/env -S sed -n 1p\nx\n' > sedscript; chmod +x sedscript; ./sedscript
test -r /etc/passwd && test -x /bin/sh && ! test -e nothing && echo tests
cd d && pwd | sed 's/.*\///' && cd - >/dev/null && echo "${OLDPWD##*/}"
pushd d/a >/dev/null; dirs -p | wc -l; popd >/dev/null
umask 027; touch masked; stat -c %A masked
ulimit -n >/dev/null && echo limits
echo ~ | grep -c /; echo "$BASH_SUBSHELL" "$(echo "$BASH_SUBSHELL")"
time (true) 2>/dev/null
timeout 0.2 sleep 100; echo "timeout $?"
echo "$RANDOM" | grep -c . ; printf '%(%Y)T\n' 0
mapfile -t lines < <(seq 5); echo "${#lines[@]} ${lines[-1]}"
select x in a b; do echo "chose $x"; break; done <<< 2 2>/dev/null
sh -c 'echo dash $0 $1' x y; bash -lc 'echo login shell'
trap 'echo "exit trap"' EXIT
kill -TERM $$
