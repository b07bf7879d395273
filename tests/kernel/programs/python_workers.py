"""Processes and threads: pools of every start method, managers, shared memory, futures, queues."""

import concurrent.futures
import multiprocessing
import multiprocessing.shared_memory
import os
import queue
import threading


def square(number):
    return number * number


def append(items, lock, number):
    with lock:
        items.append(number)


def fill(name):
    segment = multiprocessing.shared_memory.SharedMemory(name)
    segment.buf[:5] = b"hello"
    segment.close()


def tell(connection):
    connection.send({"answer": connection.recv() * 2})
    connection.close()


def put(items):
    items.put("from a child")


def pools(method):
    context = multiprocessing.get_context(method)
    with context.Pool(3) as pool:
        print(method, "pool", pool.map(square, range(10)))
    with context.Manager() as manager:
        items, lock = manager.list(), manager.Lock()
        workers = [context.Process(target=append, args=(items, lock, number)) for number in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(method, "manager", sorted(items), [worker.exitcode for worker in workers])
    ours, theirs = context.Pipe()
    child = context.Process(target=tell, args=(theirs,))
    child.start()
    ours.send(21)
    print(method, "pipe", ours.recv())
    child.join()
    items = context.Queue()
    child = context.Process(target=put, args=(items,))
    child.start()
    print(method, "queue", items.get())
    child.join()
    segment = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
    child = context.Process(target=fill, args=(segment.name,))
    child.start()
    child.join()
    print(method, "shared memory", bytes(segment.buf[:5]))
    segment.close()
    segment.unlink()
    value = context.Value("i", 0)
    with value.get_lock():
        value.value += 5
    print(method, "value", value.value)


def futures():
    for executor in (concurrent.futures.ThreadPoolExecutor, concurrent.futures.ProcessPoolExecutor):
        with executor(3) as pool:
            print(executor.__name__, list(pool.map(square, range(8))))


def threads():
    work, done = queue.Queue(), []
    barrier = threading.Barrier(4)

    def consume():
        barrier.wait()
        while (item := work.get()) is not None:
            with open(f"thread-{item}", "w") as file:
                file.write(str(item))
            done.append(item)

    consumers = [threading.Thread(target=consume) for _ in range(4)]
    for consumer in consumers:
        consumer.start()
    for item in range(100):
        work.put(item)
    for _ in consumers:
        work.put(None)
    for consumer in consumers:
        consumer.join()
    print("threads", sorted(done) == list(range(100)), len([n for n in os.listdir() if n.startswith("thread-")]))


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        pools(method)
    futures()
    threads()
    print("cpus", os.cpu_count() == multiprocessing.cpu_count(), len(os.sched_getaffinity(0)) > 0)
