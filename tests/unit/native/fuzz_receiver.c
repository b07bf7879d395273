/* Drive what the receiver does with texts, tables and files, under sanitizers: arguments SEED ROUNDS DIRECTORY. */
#define _GNU_SOURCE
#include "brief.c"
#undef LOOK_EVERY
#include <sys/ioctl.h>
/* There is no listener: whoever asks it hears that the caller waits. */
static int says_yes(int descriptor, unsigned long request, const void *argument)
{
	return (void)descriptor, (void)request, (void)argument, 0;
}
#define ioctl says_yes
#include "connects.c"
#include "effects.c"
#include "entries.c"
#undef ioctl
#include "decisions.c"
#include "log.c"
#include "looks.c"
#include "names.c"
#include "paths.c"
#include "receiver.c"
#include "serving.c"
#include "steering.c"
#include "tracer.c"

static uint64_t seed;

static size_t below(size_t limit)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (size_t)(seed >> 33) % limit;
}

static char *noise(size_t size)
{
	char *bytes = malloc(size + 1);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (char)(1 + below(255));
	bytes[size] = 0;
	return bytes;
}

static struct text text(size_t limit)
{
	size_t size = below(limit);
	return (struct text){noise(size), size};
}

static void drop(struct text *texts[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		free((char *)texts[i]->bytes);
}

static void expect(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

static void learn_and_find(struct receiver *receiver)
{
	struct decided decided = {.nr = (int32_t)below(3), .type = S_IFREG};
	struct text *texts[] = {&decided.name, &decided.action, &decided.ops, &decided.reason, &decided.target, &decided.end};
	size_t limits[] = {below(8) ? 64 : LONGEST_PATH + 64, 64, 600, 64, 9000, 64};
	for (size_t i = 0; i < 6; i++)
		*texts[i] = text(limits[i]);
	expect(receiver_learn(receiver, &decided, 0) == 0, "learn");
	const struct decided *found = decisions_find(&receiver->decisions, decided.nr, decided.name.bytes, decided.name.size);
	expect(!!found == (decided.name.size < LONGEST_PATH), "find");
	struct stat status = {.st_dev = below(1 << 30), .st_ino = below(1 << 30)};
	struct seccomp_notif asked = {.pid = (uint32_t)below(1 << 22)};
	uint64_t before = receiver->log->count;
	struct known known = {decided.name.bytes, decided.name.size, found};
	int64_t written = found ? write_record(receiver, &asked, &known, below(4) ? &status : NULL) : -1;
	expect(receiver->log->count == before + (written >= 0), "count");
	drop(texts, 6);
}

static void learn_and_find_beneath(struct receiver *receiver)
{
	static const uint32_t types[] = {0, S_IFREG, S_IFDIR, S_IFLNK};
	uint32_t type = types[below(4)];
	struct decided decided = {.nr = (int32_t)below(3), .type = type, .beneath = 1, .device = below(8)};
	struct text *texts[] = {&decided.name, &decided.action, &decided.ops, &decided.reason, &decided.target, &decided.end};
	size_t limits[] = {64, 64, 600, 64, 9000, 64};
	char path[LONGEST_PATH];
	for (size_t i = 0; i < 6; i++)
		*texts[i] = text(limits[i]);
	*(char *)decided.name.bytes = '/'; /* its end, where it is empty */
	expect(receiver_learn(receiver, &decided, 0) == 0, "learn beneath");
	int32_t key = key_beneath(decided.nr, type, 0);
	int size = snprintf(path, sizeof path, "%s/%zu", decided.name.size ? decided.name.bytes : "", below(1000));
	const struct decided *found = decisions_above(&receiver->beneath, key, path, (size_t)size);
	expect(found || decided.name.size < 2, "find beneath");
	expect(!decisions_above(&receiver->beneath, key, "/", 1), "the root");
	expect(!found || !memcmp(found->name.bytes, path, found->name.size), "another directory");
	struct known known = {path, (size_t)size, found};
	struct seccomp_notif asked = {.pid = (uint32_t)below(1 << 22)};
	if (found)
		write_record(receiver, &asked, &known, NULL);
	if (found && !type && is_plain(path, (size_t)size))
		is_missing(receiver, &known);
	drop(texts, 6);
}

static void read_paths(struct receiver *receiver)
{
	char *page = noise(PAGE * 2 - 1), path[LONGEST_PATH];
	struct seccomp_notif asked = {.pid = (uint32_t)getpid(), .data = {.nr = receiver->numbers.openat}};
	asked.data.args[0] = (uint64_t)(below(2) ? AT_FDCWD : (int)below(8));
	size_t start = below(PAGE * 2 - 1);
	page[start] = below(2) ? '/' : 'x';
	if (below(2))
		page[start + below(PAGE * 2 - start)] = 0;
	asked.data.args[1] = below(16) ? (uint64_t)(uintptr_t)(page + start) : below(1 << 20);
	size_t size = read_path(receiver, &asked, 1, path);
	expect(size < LONGEST_PATH, "path too long");
	expect(!size || (path[0] == '/' && strlen(path) == size), "path is not absolute text");
	free(page);
}

static struct sockaddr_in6 somewhere(int domain)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(1 + (uint16_t)below(2)), .sin6_addr = in6addr_loopback};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = to.sin6_port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	if (domain == AF_INET)
		memcpy(&to, &four, sizeof four);
	return to;
}

/* To ports on which nobody listens, from sockets of every sort: what is taught is repeated as it was taught or not at all. */
static void connect_somewhere(struct receiver *receiver)
{
	static const int domains[] = {AF_INET, AF_INET6, AF_UNIX}, types[] = {SOCK_STREAM, SOCK_DGRAM};
	int domain = domains[below(3)], type = types[below(2)], taught = domains[below(2)];
	struct sockaddr_in6 known = somewhere(taught), asked_for = somewhere(domain == AF_UNIX ? AF_INET : domain);
	socklen_t size = taught == AF_INET ? sizeof(struct sockaddr_in) : sizeof known;
	char *room = noise(40), empty[] = "";
	struct decided decided = {.nr = receiver->numbers.connect, .type = (uint32_t)taught, .name = {(char *)&known, size},
				  .action = {empty, 0}, .ops = {empty, 0}, .reason = {empty, 0}, .target = {empty, 0}, .end = {empty, 0}};
	expect(receiver_learn(receiver, &decided, 0) == 0, "learn a connect");
	int opened = below(8) ? socket(domain, type | SOCK_NONBLOCK, 0) : open("/dev/null", O_RDONLY);
	memcpy(room, &asked_for, sizeof asked_for);
	struct seccomp_notif asked = {.pid = (uint32_t)getpid(), .data = {.nr = receiver->numbers.connect}};
	asked.data.args[0] = below(8) ? (uint64_t)opened : below(1 << 16);
	asked.data.args[1] = below(8) ? (uint64_t)(uintptr_t)room : below(1 << 20);
	asked.data.args[2] = below(4) ? (domain == AF_INET6 ? sizeof known : sizeof(struct sockaddr_in)) : below(64) - 8;
	uint64_t before = receiver->log->count, begun = receiver->begun.count;
	struct refusal refusal;
	enum outcome outcome = serve_connect(receiver, &asked, &refusal);
	if (outcome == REFUSED && !refusal.error)
		close(refusal.descriptor); /* the machine is slow */
	expect(outcome == FOR_BROKER || !refusal.error || refusal.error == EINPROGRESS || refusal.error == ECONNREFUSED, "another error");
	expect((outcome != FOR_BROKER) == (receiver->log->count > before), "repeated without a record, or the reverse");
	expect((outcome != FOR_BROKER) == (receiver->begun.count > begun), "begun and not told of, or the reverse");
	expect(outcome == FOR_BROKER || (domain != AF_UNIX && type == SOCK_STREAM), "another socket");
	expect(receiver->begun.promised == receiver->begun.count, "promises");
	struct begun *told = malloc(MOST_BEGUN * sizeof *told);
	if (!below(100))
		expect(receiver_begun(receiver, told) <= MOST_BEGUN && !receiver->begun.count, "told");
	free(told);
	free(room);
	close(opened);
}

static void teach(struct receiver *receiver, const char *beneath, int nr, uint32_t type, uint32_t manner)
{
	static const char empty[] = "";
	struct stat status;
	expect(!stat(beneath, &status), "the directory");
	struct text none = {empty, 0};
	struct decided decided = {.nr = nr, .type = type, .manner = manner, .beneath = 1, .device = status.st_dev,
				  .name = {beneath, strlen(beneath)}, .action = none, .ops = none, .reason = none,
				  .target = none, .end = none};
	expect(receiver_learn(receiver, &decided, 0) == 0, "learn an effect");
}

static const int *entry_calls(const struct receiver *receiver)
{
	static int calls[8];
	memcpy(calls, &receiver->numbers.mkdir, sizeof calls);
	return calls;
}

static void teach_effects(struct receiver *receiver, const char *beneath)
{
	for (int i = 0; i < 8; i++)
		teach(receiver, beneath, entry_calls(receiver)[i], 0, CHANGES);
	for (uint32_t access = 0; access < 3; access++) {
		teach(receiver, beneath, receiver->numbers.openat, 0, access | CREATES);
		teach(receiver, beneath, receiver->numbers.openat, S_IFREG, access);
		teach(receiver, beneath, receiver->numbers.openat, S_IFREG, access | TRUNCATES);
	}
}

/* A name of few, so that they meet: absolute, relative, long, no path at all. It lives until the next but two. */
static uint64_t some_name(const char *beneath)
{
	static const char *const names[] = {"a", "b", "c", "a/b", "a/c", "c/a", ".", "..", "a/", "./b", "", "b\n", "link", "link/a"};
	static char room[4][LONGEST_PATH];
	static int turn;
	char *place = room[turn++ % 4], *junk = noise(below(300));
	const char *name = below(40) ? names[below(sizeof names / sizeof *names)] : junk;
	snprintf(place, LONGEST_PATH, "%s%s%s", below(2) ? beneath : "", below(8) ? "/" : "", name);
	if (place[0] == '/' && below(2))
		memmove(place, place + 1, strlen(place));
	free(junk);
	return below(30) ? (uint64_t)(uintptr_t)place : below(1 << 20);
}

static void change_something(struct receiver *receiver, const char *beneath, int held)
{
	static const int flags[] = {O_WRONLY, O_RDWR, O_RDONLY, O_CREAT, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK};
	const int directories[] = {AT_FDCWD, held, held, 0, 1 << 20};
	int opens = below(2), nr = opens ? receiver->numbers.openat : entry_calls(receiver)[below(8)];
	int plain = nr == receiver->numbers.mkdir || nr == receiver->numbers.unlink || nr == receiver->numbers.rmdir || nr == receiver->numbers.rename;
	struct seccomp_notif asked = {.pid = (uint32_t)getpid(), .data = {.nr = nr}};
	uint64_t *arguments = (uint64_t *)asked.data.args;
	for (int i = 0; i < 5; i++)
		arguments[i] = i % 2 == plain ? (uint64_t)directories[below(5)] : some_name(beneath);
	if (plain)
		arguments[1] = moves(&receiver->numbers, nr) ? some_name(beneath) : below(01000);
	if (nr == receiver->numbers.unlinkat || nr == receiver->numbers.mkdirat)
		arguments[2] = below(2) ? below(01000) : below(2) ? AT_REMOVEDIR : 0;
	arguments[4] = below(4) == 0;
	for (int i = opens ? 3 : 0; i >= 0 && opens; i--)
		arguments[2] = (i == 3 ? 0 : arguments[2]) | (uint64_t)flags[below(sizeof flags / sizeof *flags)];
	if (opens)
		arguments[3] = below(010000);
	uint64_t before = receiver->log->count, recorded = receiver->recorded;
	struct refusal refusal = {.sequence = -1};
	enum outcome outcome = opens ? serve_writing(receiver, &asked, 1, &refusal) : serve_entry(receiver, &asked, &refusal);
	expect((outcome != FOR_BROKER) == (receiver->log->count > before), "an effect without a record, or the reverse");
	expect((outcome != FOR_BROKER) == (receiver->recorded == recorded + 1), "a call without a record, or the reverse");
	expect(outcome != REFUSED || (refusal.error > 0 && refusal.sequence >= 0), "a refusal without its error");
}

static void change_files(struct receiver *receiver, const char *directory, long rounds)
{
	char beneath[LONGEST_PATH], link[LONGEST_PATH + 8];
	expect(realpath(directory, beneath) != NULL && !chdir(beneath), "realpath");
	snprintf(link, sizeof link, "%s/link", beneath);
	symlink("a", link);
	int held = open(beneath, O_PATH | O_DIRECTORY | O_CLOEXEC), highest = dup(held);
	close(highest);
	uint64_t recorded = receiver->recorded;
	for (long i = 0; i < rounds; i++) {
		if (i % 1000 == 0) {
			receiver_forget(receiver, 0);
			teach_effects(receiver, beneath);
		}
		change_something(receiver, beneath, held);
	}
	expect(rounds < 1000 || receiver->recorded > recorded + (uint64_t)rounds / 20, "nothing was changed");
	int again = dup(held);
	expect(again <= highest + LINKS / 8, "descriptors are kept");
	close(again);
	close(held);
}

static void nothing(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	static const char zeros[HEX_HASH + 1] = "0000000000000000000000000000000000000000000000000000000000000000";
	struct log_state log;
	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
	long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
	expect(log_init(&log, open("/dev/null", O_WRONLY), zeros) == 0, "log_init");
	const struct numbers numbers = {2, 257, 4, 6, 262, 41, 42, 332, 21, 269, 439, 89, 267,
					83, 258, 87, 84, 263, 82, 264, 316};
	struct receiver *receiver = receiver_new(-1, &log, 0, &numbers, 0);
	expect(receiver != NULL, "receiver_new");
	struct sigaction interrupted = {.sa_handler = nothing};
	sigaction(SIGUSR1, &interrupted, NULL);
	expect(brief_new(SIGUSR1) != NULL, "brief_new");
	for (long i = 0; i < rounds; i++) {
		learn_and_find(receiver);
		learn_and_find_beneath(receiver);
		read_paths(receiver);
		connect_somewhere(receiver);
	}
	expect(rounds < 100 || receiver->recorded, "no connect was repeated");
	expect(argc > 3, "a directory");
	change_files(receiver, argv[3], rounds);
	decisions_clear(&receiver->decisions);
	decisions_clear(&receiver->beneath);
	free(receiver);
	return 0;
}
