#!/bin/bash
# PID 1 of the node. Every mount, link and route made here is private and goes away with this process.
# Environment: STATE, NODE, NODE_IP, POD_CIDR, SERVICE_CIDR.
set -e
mount --make-rprivate /
mount --make-rshared / # among the node's own namespaces: pods with mount propagation ask for it
hostname "$NODE"

# A veth pair with both ends in here carries the node's address. No default route, no uplink: there is no way out.
ip link set lo up
ip link add node0 type veth peer name node1
ip link set node0 up
ip link set node1 up
ip address add "$NODE_IP/32" dev node0
ip route add unreachable "$POD_CIDR" # pods are /32 routes; an address that no pod has is answered at once
ip route add "$SERVICE_CIDR" dev node0 # a ClusterIP needs a route before kube-proxy's rules can rewrite it
echo 1 >/proc/sys/net/ipv4/ip_forward

# The cgroup hierarchies again, as seen from this node's cgroup namespace.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount -l /sys/fs/cgroup 2>/dev/null || : # a mount on top does as well
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  controllers=$(cut -d: -f2 /proc/self/cgroup | grep -v '^$')
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  for controller in $controllers; do
    folder=/sys/fs/cgroup/${controller#name=}
    mkdir -p "$folder"
    case $controller in
      name=*) mount -t cgroup -o "none,$controller" cgroup "$folder" ;;
      *) mount -t cgroup -o "$controller" cgroup "$folder" ;;
    esac
  done
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
mkdir -p "$STATE/var-log/pods" "$STATE/var-log/containers"
mount --bind "$STATE/var-log" /var/log
# The folder of device plugin sockets is a constant below /var/lib/kubelet, and libcni keeps a cache in /var/lib/cni.
mkdir -p "$STATE/var-lib"
mount --bind "$STATE/var-lib" /var/lib

# The kubelet sets sysctls that belong to the whole machine: it is shown files that hold what it wants already.
mkdir -p "$STATE/run/sysctl"
while read -r name value; do
  [ -e "/proc/sys/$name" ] || continue
  file=$STATE/run/sysctl/${name//\//_}
  echo "$value" >"$file"
  mount --bind "$file" "/proc/sys/$name"
done <<'SYSCTLS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SYSCTLS

touch "$STATE/run/holder-ready"
trap : TERM INT HUP
while :; do # bash reaps the orphans it adopts while it waits
  sleep 3600 &
  wait $! || :
done
