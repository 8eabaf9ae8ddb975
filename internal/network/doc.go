// Package network gives containers their network: the default bridge with
// addresses, routes to the outside and published ports, and bare namespaces for
// containers that want none.
//
// It exists because creating a network namespace with a plugged-in interface is
// the dearest part of starting a container (about two milliseconds of kernel
// work), and because firewall state that is written once and never looked at
// again is what users of container engines complain about most. So:
//
//   - A small pool of complete namespaces (address, routes, loopback up) is kept
//     ready. Attach takes one without any netlink traffic; the pool is filled
//     again in the background. A used namespace is destroyed, never handed out
//     twice.
//   - Published ports are elements of nftables maps in a table of our own, one
//     element for each port and address family, changed in one atomic
//     transaction. The table is watched and put back when somebody flushes it.
//
// # User-defined networks
//
// Each has a bridge and addresses of its own. A container on some of them gets a
// namespace with a loopback only, and then an interface for each network, when it
// starts or while it runs. What is on one network does not reach another one but
// through published ports; an internal network reaches nothing outside at all.
//
// The default network can be joined like one of them, and left, by a container that
// runs. The default route, and with it the published ports, is with the network that
// has the highest priority, or the first name.
//
// Containers there find each other by name. The name service listens inside of
// each container's namespace on ports of its own, to which packets for
// 127.0.0.11:53 are redirected, so that port 53 remains the container's. It is a
// process beside the engine (package nameserver): names are found while no engine
// runs, too. Names that are not known here are asked of the servers outside, unless
// all networks of the container are internal (CVE-2024-29018).
//
// # Crashes
//
// The engine may be killed at any instant. An unused namespace is held by
// nothing but a descriptor of the engine, so the kernel takes it back, with its
// interface, when the engine dies. The namespace of a container is held by the
// container's own processes. What is claimed by a container is first recorded in
// the run directory and then made; Adopt compares the records, the containers
// that are alive and the kernel, and removes what belongs to nobody. No bind
// mounts are made: each would cost every later container a mount to copy.
//
// # What packets may do
//
// Containers on the bridge talk to one another and, masqueraded, to the outside.
// From outside the bridge a container is reachable only through a published
// port; packets that carry a container's own address are dropped before routing,
// so a neighbour with a route gains nothing. Ports published on 127.0.0.1 answer
// only to the host itself: packets for 127.0.0.0/8 that arrive on any interface
// but the loopback are dropped, because route_localnet (set on our bridge alone,
// so that the host reaches published ports through 127.0.0.1) would let them in.
//
// A port published on all addresses answers on [::1] too, through a local route
// on the bridge. Where the kernel runs bridged packets through ip6tables
// (net.bridge.bridge-nf-call-ip6tables=1) such replies cannot be delivered, so
// there [::1] refuses connections at once and clients fall back to 127.0.0.1.
//
// A container that listens on IPv4 alone refuses connections over IPv6: there is
// no proxy process that would translate, and none that would hide the client's
// address.
//
// # The host's own rules
//
// An accept in one nftables table does not overrule a drop in another. Where the
// host's firewall, or another engine, drops forwarded packets by default (the
// FORWARD policy that Docker sets, for one), that is the host's decision and
// holds for Berth's containers too. Berth never edits tables of others.
//
// Forwarding (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding) is turned on
// for the first container on the bridge when it is off, and stays on, as with
// other engines. Interfaces that learn
// their IPv6 routes from router advertisements keep doing so: their accept_ra
// is raised from 1 to 2 before.
package network
