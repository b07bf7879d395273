/* Drive what the receiver does with texts and tables, under sanitizers: arguments SEED ROUNDS. */
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
#undef ioctl
#include "decisions.c"
#include "log.c"
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
	int32_t key = key_beneath(decided.nr, type);
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
	const struct numbers numbers = {2, 257, 4, 6, 262, 41, 42, 332, 21, 269, 439, 89, 267};
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
	decisions_clear(&receiver->decisions);
	decisions_clear(&receiver->beneath);
	free(receiver);
	return 0;
}
