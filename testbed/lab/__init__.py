"""One real Kubernetes on this machine: built from source, in namespaces of its own. Standard library only."""
