# The everyday tools: what they print, and what they leave behind (the test compares the trees).
set -u
mkdir -p t/sub/deep && cd t
seq 1 20000 > numbers; printf 'alpha\nbeta\ngamma\n' > words; printf 'x\0y\0' > nul; : > empty
awk 'BEGIN { srand(7); for (i = 0; i < 200000; i++) print int(rand() * 1000000), i }' > big
sort -S 1M -n big -o sorted && sort -c -n sorted && md5sum < sorted
sort --parallel=2 -S 1M -u -k1,1n big | wc -l
ls /proc/self/fd >/dev/null && ls -la --time-style=+ words | awk '{ print $1, $2, $5, $6 }'; ls -R | head -30
tar -cf a.tar numbers words sub && tar -tvf a.tar | awk '{ print $1, $NF }'
tar -czf a.tgz words && tar -cJf a.txz words && mkdir x && tar -xzf a.tgz -C x && tar -xf a.txz -C x && cat x/words
gzip -k numbers && gunzip -c numbers.gz | cksum; zcat numbers.gz | tail -1; bzip2 -k words && bzcat words.bz2 | head -1; xz -k words && xzcat words.xz | wc -l
find . -name 'w*' -exec echo found {} \; | sort; find . -type f -newer empty -name nope; find . -size +1k -print0 | xargs -0 -n1 basename | sort
find . -type d -empty -delete; find . -maxdepth 1 -type f ! -name '*.t?z' -printf '%f %s\n' | sort | head -4
grep -rn beta . | sort; grep -c 9 numbers; grep -q zeta words; echo "grep $?"; grep -rl alpha --include='w*' . | sort | head -1
sed -i 's/beta/BETA/' words && cat words; sed -i.bak '1d' words && cat words.bak | head -1; sed -n '2p;3q' numbers
seq 8 | xargs -P2 -n2 echo | sort; seq 3 | xargs -I{} sh -c 'echo item {}'
install -D -m 0640 words in/st/alled && stat -c '%a %s %F' in/st/alled; install -d -m 700 in/dir && stat -c %a in/dir
mkdir -p tree/one && ln -s ../words tree/one/link && ln words tree/hard && touch -d '2001-02-03 04:05:06 UTC' tree/hard && chmod 600 tree/hard
cp -a tree copy && stat -c '%n %a %Y %h' copy/hard && readlink copy/one/link; cp -r --preserve=all tree copy2; cp --reflink=auto numbers n2 && cmp numbers n2 && echo same
cp -l words hardlinked && cp -s "$PWD/words" symlinked && stat -c %h words; mv copy moved && mv -n moved copy2 && ls copy2; mv words words2 && mv words2 words
ln -sf words link && ln -sfn tree link2 && readlink -f link2 | sed 's/.*\///'; rm -r copy2 && rmdir in/dir && rm -f nothing; rm nothing 2>/dev/null; echo "rm $?"
touch -d '@1000000000' dated && date -u -r dated +%F; touch -r dated other && stat -c %Y other; truncate -s 5000 sparse && stat -c %s sparse; shred -u -n1 other && ls other 2>/dev/null; echo "shred $?"
chmod u+x,g-w,o= words && stat -c %A words; chmod -R a-x+X tree; chgrp "$(id -g)" words && echo chgrp
file=$(mktemp) && directory=$(mktemp -d) && echo temporary > "$file" && cat "$file" && rm "$file" && rmdir "$directory"; mktemp -p . -u XXXX | grep -c .
du -s --apparent-size -B1 words | cut -f1; du -a tree | wc -l; df . | wc -l; df --output=target / | tail -1; stat -f -c %s . >/dev/null && echo statfs
ps -o pid= -p $$ | tr -d ' ' | grep -cx $$; ps -ef >/dev/null; echo "ps $?"; ps --ppid $$ -o comm= | sort | head -1
timeout 5 true && timeout -s KILL 0.1 sleep 5; echo "timeout $?"; nice -n 5 nice; nohup echo nohup 2>/dev/null; stdbuf -oL echo line
echo teed | tee one two three | cat; cat one two; tee -a one < two >/dev/null; wc -l one
dd if=/dev/zero of=zeros bs=4k count=16 2>/dev/null && dd if=numbers bs=1 skip=2 count=3 2>/dev/null | od -c | head -1; dd if=numbers of=zeros conv=notrunc seek=1 bs=512 count=1 2>&1 | head -1
split -l 5000 numbers part- && ls part-*; split -b 30k -d numbers chunk. && cat chunk.* | cmp - numbers && echo rejoined; csplit -s numbers 100 200 && wc -l xx0* | tail -1
awk -F: 'NR == 1 { print $1 }' /etc/passwd; awk '{ s += $1 } END { print s }' numbers; awk 'BEGIN { "echo piped" | getline x; print x; print "sorted" | "sort" }'
diff words words.bak; diff -u empty words | tail -3; cmp empty words 2>/dev/null; echo "cmp $?"; comm -12 <(sort words) <(sort words.bak)
printf -- '--- words\n+++ words\n@@ -1,2 +1,2 @@\n-BETA\n+delta\n gamma\n' > change && patch -s words change && cat words && patch -R -s words change && ls words*
head -3 numbers | paste -s -d+ | bc 2>/dev/null || echo 6; tail -n2 numbers; tac words; nl words; fold -w2 words | head -2; cut -c1-2 words; uniq -c words; shuf -n1 empty; tr a-z A-Z < words; join words words; expand empty; fmt words; pr -t words | head -1; od -An -tx1 nul; base64 words; sha256sum words; cksum words; numfmt --to=iec 2048; seq -s, 5; factor 60; expr 6 \* 7; test 1 -lt 2; printf '%05d\n' 42; basename a/b.c .c; dirname a/b/c; realpath --relative-to=. sub/.. ; pathchk ok; env -i A=1 env; printenv HOME >/dev/null && echo home; id -u >/dev/null && whoami >/dev/null && groups >/dev/null && hostname >/dev/null && uname -s && arch && nproc >/dev/null && logname >/dev/null 2>&1; date -u -d @0 +%F; sleep 0; tty; echo "tty $?"; yes | head -2; sync words; getconf PAGESIZE; getent passwd root | cut -d: -f1; locale >/dev/null && echo locale; which sh; free >/dev/null && uptime >/dev/null && echo proc; mkfifo ff && stat -c %F ff; unlink ff; link words linked; (exec 9< words; flock -n 9 true 2>/dev/null; echo flock $?); echo done
exit 3
