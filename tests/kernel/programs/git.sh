# A day with a local repository. Dates and names are fixed, so every hash is the same in both runs.
set -eu
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.org GIT_AUTHOR_DATE='2024-01-02T03:04:05Z'
export GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.org GIT_COMMITTER_DATE='2024-01-02T03:04:05Z'
git init -q -b main repository
cd repository
git config user.name Ada
mkdir -p src && printf 'one\ntwo\n' > src/a.txt && ln -s src/a.txt link && printf '#!/bin/sh\necho run\n' > tool && chmod +x tool
git add .
git commit -q -m 'first'
git status --short --branch
git branch topic
printf 'three\n' >> src/a.txt
git commit -q -am 'second'
git switch -q topic
printf 'other\n' > b.txt
git add b.txt
git commit -q -m 'on a branch'
git rebase -q main
git log --oneline --graph --all
git switch -q main
git merge -q --no-ff -m 'merge' topic
printf 'not yet\n' >> src/a.txt
git stash push -q -m 'later'
git stash list
git stash pop -q
git diff --stat
git checkout -q -- src/a.txt
git tag -a -m 'a tag' v1
git mv b.txt c.txt && git rm -q link && git commit -q -m 'moved and removed'
git log --format='%h %an %s' --name-status
git show --stat HEAD | cat
git blame src/a.txt
git grep -n two
git worktree add -q ../beside topic
ls ../beside
git worktree remove ../beside
git reset -q --hard HEAD~1
git cherry-pick v1 >/dev/null 2>&1 || echo "nothing to pick: $?"
git cherry-pick --abort 2>/dev/null || git reset -q --hard
printf 'exit 1\n' > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit
git commit -q --allow-empty -m 'refused' || echo "hook said no: $?"
printf '#!/bin/sh\necho a hook ran\n' > .git/hooks/pre-commit
git commit --allow-empty -m 'allowed' 2>&1
git gc -q --prune=now
git fsck --full 2>&1
cd ..
git clone -q repository copy
git clone -q --bare repository bare.git
git -C copy remote set-url origin "$PWD/bare.git"
cd copy
printf 'pushed\n' > d.txt && git add d.txt && git commit -q -m 'to push' && git push -q origin main
git -C ../bare.git log --oneline -3
git fetch -q && git pull -q --ff-only && git rev-parse HEAD
git archive --format=tar HEAD | tar -tf - | sort
git format-patch -1 --stdout > ../p.patch && cd ../repository && git am -q ../p.patch && git log -1 --format=%s
git bisect start HEAD HEAD~3 >/dev/null && git bisect run test -e src/a.txt >/dev/null && git bisect reset 2>/dev/null
git submodule status; git -c alias.hi='!echo alias in $(basename $PWD)' hi
git rev-parse --verify nonexistent 2>&1 || echo "status $?"
