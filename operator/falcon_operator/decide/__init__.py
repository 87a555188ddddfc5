"""Pure decisions: from a snapshot of the cluster to a plan. No I/O and no clock."""
