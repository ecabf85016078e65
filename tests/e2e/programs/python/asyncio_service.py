# SPDX-License-Identifier: Apache-2.0
"""An asyncio service: many requests at once, all on the one thread of the event loop.

Spans overlap on that thread, and while one of them waits the loop runs another: the thread is right
for each of them, and only for the reason that no other thread serves spans.
Usage: asyncio_service.py SPANS
"""

import asyncio
import sys
import time

from opentelemetry import trace

tracer = trace.get_tracer("asyncio-service")

CONCURRENT_REQUESTS = 8


def work(microseconds: int) -> None:
    """Runs on the CPU for about that long."""
    until = time.perf_counter_ns() + microseconds * 1000
    while time.perf_counter_ns() < until:
        pass


async def handle(number: int) -> None:
    """One request: a root span and one child, with waits of the loop in between."""
    with tracer.start_as_current_span("order"):
        work(300)
        await asyncio.sleep(0.001 * (number % 5))
        with tracer.start_as_current_span("order.store"):
            work(200)
            await asyncio.sleep(0.001)
        work(100)


async def client(numbers) -> None:
    """Takes the next request as soon as the last one is done."""
    for number in numbers:
        await handle(number)


async def main(spans: int) -> None:
    numbers = iter(range(spans // 2))
    await asyncio.gather(*(client(numbers) for _ in range(CONCURRENT_REQUESTS)))


asyncio.run(main(int(sys.argv[1])))
