"""Domain-free asyncio parts: supervised tasks, a keyed work queue, back-off, the clock."""
