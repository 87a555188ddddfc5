"""The autoscaler on a real cluster: the operator from its chart, real gateways, and engines that follow a law."""
