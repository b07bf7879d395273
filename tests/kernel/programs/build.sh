# gcc: objects, a static and a shared library, a program; then make, in parallel, twice.
set -eu
cat > add.c <<'END'
int add(int a, int b) { return a + b; }
END
cat > mul.c <<'END'
int mul(int a, int b) { return a * b; }
END
cat > main.c <<'END'
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
int add(int, int), mul(int, int);
static void *thread(void *argument) { *(int *)argument = add(20, 1); return 0; }
int main(int argc, char **argv)
{
    pthread_t worker;
    int from_thread = 0;
    pthread_create(&worker, 0, thread, &from_thread);
    pthread_join(worker, 0);
    printf("%s %d %d %.1f\n", argc > 1 ? argv[1] : "-", from_thread, mul(6, 7), sqrt(atof("16")));
    FILE *file = fopen("made-by-program", "w");
    fprintf(file, "written\n");
    return fclose(file) || argc > 1 ? 0 : 9;
}
END
gcc -O2 -Wall -c add.c && ar rcs libadd.a add.o && ranlib libadd.a && nm libadd.a | grep add
gcc -O2 -g -fPIC -shared -o libmul.so mul.c && readelf -d libmul.so | grep -c SONAME || true
gcc -O2 -pipe -o program main.c -L. -ladd -lmul -Wl,-rpath,"$PWD" -lm -pthread && ./program dynamic && cat made-by-program
gcc -static -o static main.c mul.c add.c -lm -pthread 2>/dev/null && ./static static
gcc -flto -O2 -o lto main.c mul.c add.c -lm -pthread && ./lto lto; strip lto && ./lto || echo "status $?"
gcc -E add.c | tail -1; gcc -S -o - add.c | grep -c globl; gcc -M main.c | grep -c stdio.h
gcc -o broken -x c - <<< 'int main( { }' 2>/dev/null || echo "does not compile: $?"
echo 'int main(){return 3;}' | gcc -x c - && { ./a.out || echo "a.out $?"; }
if command -v g++ >/dev/null; then echo '#include <iostream>
int main(){std::cout << "c++" << std::endl;}' | g++ -x c++ - -o cpp && ./cpp; fi
mkdir -p out && cat > Makefile <<'END'
OBJECTS := $(patsubst %.c,out/%.o,$(sort $(wildcard *.c)))
all: out/program
	@out/program made
out/%.o: %.c
	@echo compiling $<
	@$(CC) -c -o $@ $<
out/program: $(OBJECTS)
	@$(CC) -o $@ $^ -lm -pthread
version := $(shell echo $$((1 + 1)))
fails:
	@echo version $(version); false
clean:
	rm -rf out
.PHONY: all fails clean
END
make -j2 -Otarget | sort
make
touch -d '2030-01-01' add.c && make 2>/dev/null | head -1
make -k fails 2>/dev/null || echo "make $?"
make -s clean && ls
exit 2
