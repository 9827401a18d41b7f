"""How much waits in a queue."""

from celery import Celery


def length(app: Celery, queue: str) -> int:
    """This will return the number of messages waiting in a queue; 0 for one that does not exist yet.

    Raises kombu.exceptions.OperationalError when the broker is away.
    """
    with app.connection_or_acquire() as connection:
        channel = connection.default_channel
        if hasattr(channel, "client"):  # Redis: asking costs a millisecond less than declaring first
            return channel.client.llen(queue)
        return channel.queue_declare(queue, durable=True, auto_delete=False).message_count
