"""From events to writes: cache, queue, workers, sweep."""
