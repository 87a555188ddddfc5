"""What rollouts, drains and failures cost clients that stream: requests failed, streams cut, time held."""
