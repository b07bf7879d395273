// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Sockets: internet addresses by the kernel's own copy of them, Unix sockets by the file that is really there. */
#include "lsm_judge.h"

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define MSG_FASTOPEN 0x20000000
#define FAMILIES 64
#define SHORT_INET6 24 /* without its scope */

/* Write an internet address into the event; an IPv4 address in IPv6 clothes is IPv4. Return whether it is one. */
INLINE int read_address(struct event *event, const void *address, __u32 length, int unspecified_is_inet)
{
	__u16 family = quarter(address, 0), port = quarter(address, 2);
	__u64 upper = 0;
	if (family == AF_INET || (family == AF_UNSPEC && unspecified_is_inet)) {
		if (length < 16)
			return 0;
		event->version = 4;
		bpf_probe_read_kernel(event->address, 4, AT(address, 4));
	} else if (family == AF_INET6 && length >= SHORT_INET6) {
		upper = word(address, 8);
		if (!upper && half(address, 16) == 0xffff0000) {
			event->version = 4;
			bpf_probe_read_kernel(event->address, 4, AT(address, 20));
		} else {
			event->version = 6;
			bpf_probe_read_kernel(event->address, 16, AT(address, 8));
		}
	} else
		return 0;
	event->number = (__u16)(port << 8 | port >> 8);
	return 1;
}

INLINE int is_unspecified(struct event *event)
{
	__u64 *halves = (__u64 *)event->address;
	return !halves[0] && !halves[1];
}

/* To no address means to this machine; of a socket that is bound, to what it is bound to, which nobody looked at. */
INLINE int direct(struct event *event, const void *sock)
{
	if (!is_unspecified(event))
		return 1;
	if (half(sock, SOCK_COMMON_SKC_RCV_SADDR) || word(sock, SOCK_COMMON_SKC_V6_RCV_SADDR) ||
	    word(sock, SOCK_COMMON_SKC_V6_RCV_SADDR + 8))
		return 0;
	if (event->version == 4) {
		event->address[0] = 127;
		event->address[3] = 1;
	} else
		event->address[15] = 1;
	return 1;
}

INLINE struct found match(struct slot *slot, __u32 kind)
{
	struct event *event = &slot->event;
	struct found found = none();
	struct network key = {
		.length = 32 + (event->version == 4 ? 32 : 128),
		.generation = event->generation,
		.kind = kind,
		.version = event->version,
	};
	__builtin_memcpy(key.address, event->address, sizeof(key.address));
	struct endpoints *here = networks.lookup(&key);
	if (!here)
		return found;
	LOOP for (int i = 0; i < ENDPOINTS; i++) {
		if (i >= here->count)
			break;
		struct endpoint *rule = &here->rules[i];
		if (event->number < rule->low || event->number > rule->high || !(rule->protocols & event->protocol))
			continue;
		if (rule->blocks && rule->rule < found.block)
			found.block = rule->rule;
		if (!rule->blocks && rule->rule < found.allow)
			found.allow = rule->rule;
	}
	return found;
}

INLINE __u8 protocol_of(const void *sock)
{
	__u16 number = quarter(sock, SOCK_SK_PROTOCOL);
	return number == IPPROTO_TCP ? PROTOCOL_TCP : number == IPPROTO_UDP ? PROTOCOL_UDP : PROTOCOL_OTHER;
}

/* Decide and record what an internet socket does with an address. */
INLINE int judge_address(const void *sock, __u32 kind, const void *address, __u32 length, int unspecified_is_inet)
{
	__u32 claimed = 0;
	struct slot *slot = enter(&claimed);
	if (!slot)
		return -EACCES;
	struct event *event = &slot->event;
	event->protocol = protocol_of(sock);
	event->opinions[0].kind = kind;
	int refused = address ? !read_address(event, address, length, unspecified_is_inet) : 0;
	if (!address)
		event->version = quarter(sock, SOCK_COMMON_SKC_FAMILY) == AF_INET ? 4 : 6;
	if (kind != NET_BIND && !direct(event, sock))
		refused = 1;
	__u32 treated = treatment(event->generation, kind);
	if (treated == TREAT_RULES && !refused)
		refused = settle(slot, 0, kind, match(slot, kind));
	else if (treated == TREAT_DENY)
		refused = 1;
	return leave(slot, claimed, refused ? EACCES : 0);
}

INLINE int is_internet(const void *sock)
{
	__u16 family = quarter(sock, SOCK_COMMON_SKC_FAMILY);
	return family == AF_INET || family == AF_INET6;
}

/* Sockets of other families reach nothing that a rule could name. */
INLINE int is_unix(const void *sock)
{
	return quarter(sock, SOCK_COMMON_SKC_FAMILY) == AF_UNIX;
}

int hook_socket_connect(unsigned long long *ctx)
{
	void *sock = pointer((void *)ctx[0], SOCKET_SK), *address = (void *)ctx[1];
	if (!is_agent() || is_unix(sock))
		return 0; /* see unix_stream_connect */
	if (quarter(address, 0) == AF_UNSPEC && is_internet(sock))
		return 0; /* it ends an association */
	return judge_address(sock, NET_CONNECT, address, ctx[2], 0);
}

int hook_socket_sendmsg(unsigned long long *ctx)
{
	void *sock = pointer((void *)ctx[0], SOCKET_SK), *message = (void *)ctx[1];
	void *address = pointer(message, MSGHDR_MSG_NAME);
	if (!is_agent() || !address || is_unix(sock))
		return 0;
	int connects = half(message, MSGHDR_MSG_FLAGS) & MSG_FASTOPEN && quarter(sock, SOCK_SK_PROTOCOL) == IPPROTO_TCP;
	return judge_address(sock, connects ? NET_CONNECT : NET_SEND, address, half(message, MSGHDR_MSG_NAMELEN), 1);
}

int hook_socket_bind(unsigned long long *ctx)
{
	void *sock = pointer((void *)ctx[0], SOCKET_SK), *address = (void *)ctx[1];
	if (!is_agent())
		return 0;
	if (!is_unix(sock))
		return judge_address(sock, NET_BIND, address, ctx[2], 1);
	if ((int)ctx[2] <= 2 || !byte(address, 2))
		return judge_kind(UNIX_BIND, 1, 0, 0); /* a name without a file: no rule can name it */
	return 0; /* see path_mknod */
}

/* A socket that was not bound is bound to a port of the kernel's choice. */
int hook_socket_listen(unsigned long long *ctx)
{
	void *sock = pointer((void *)ctx[0], SOCKET_SK);
	if (!is_agent() || !is_internet(sock) || quarter(sock, SOCK_COMMON_SKC_NUM))
		return 0;
	return judge_address(sock, NET_BIND, 0, 0, 0);
}

int hook_socket_create(unsigned long long *ctx)
{
	__u32 family = ctx[0], type = ctx[1], protocol = ctx[2], claimed = 0;
	if (!is_agent() || ctx[3])
		return 0;
	struct slot *slot = enter(&claimed);
	if (!slot)
		return -EPERM;
	int internet = family == AF_INET || family == AF_INET6;
	int plain = internet && ((type == SOCK_STREAM && (!protocol || protocol == IPPROTO_TCP)) ||
				 (type == SOCK_DGRAM && (!protocol || protocol == IPPROTO_UDP)));
	int key = (slot->event.generation & 1) * FAMILIES + (family & (FAMILIES - 1));
	struct found *found = families.lookup(&key), known = found && family < FAMILIES ? *found : none();
	slot->event.number = family;
	int refused = settle(slot, 0, NET_SOCKET, known);
	if (plain || family == AF_UNIX)
		refused = known.block != NO_RULE; /* it reaches nothing yet */
	else if (internet)
		refused = 1;
	__u32 treated = treatment(slot->event.generation, NET_SOCKET);
	if (treated != TREAT_RULES)
		refused = treated != TREAT_ALLOW;
	return leave(slot, claimed, refused ? EACCES : 0);
}

/* One that has neither name nor file is the other end of a pair, or of a connection that somebody accepted. */
INLINE int reaches(const void *other)
{
	void *path = AT(other, UNIX_SOCK_PATH), *dentry = pointer(path, PATH_DENTRY);
	if (dentry)
		return judge(dentry, mount_of(path), UNIX_CONNECT, NOTHING, 0);
	return pointer(other, UNIX_SOCK_ADDR) ? judge_kind(UNIX_CONNECT, 1, 0, 0) : 0;
}

int hook_unix_stream_connect(unsigned long long *ctx)
{
	return is_agent() ? reaches((void *)ctx[1]) : 0;
}

int hook_unix_may_send(unsigned long long *ctx)
{
	return is_agent() ? reaches(pointer((void *)ctx[1], SOCKET_SK)) : 0;
}
