"""What Python users hold in their hands: producer, consumer, transaction and admin, over a bucket or over HTTP."""
