// Package nameserver is the name service of user-defined networks. It runs in a process
// of its own, so that containers find one another while no engine runs: an engine
// that is killed, or replaced, takes no name away.
//
// The engine makes a container's two sockets, in the container's namespace, and
// leads packets for 127.0.0.11:53 to them. It gives the server the sockets and says
// what the container's names and networks are; every change replaces what is known
// of one container. The server keeps nothing: it answers, and asks others outside.
//
// # Who frees what
//
// The server is the child of the engine that started it and outlives it. The
// connection between the two is its life line only as long as there is nothing to
// serve: at its end, a server without containers ends too, one with containers
// goes on with what it knows. The next engine starts a server of its own, moves
// all containers to it, and then ends the ones before, which it finds by
// their sockets in the run directory (Retire). So there is no moment at which
// nobody answers.
//
// The engine holds the sockets as well. A server that is killed is started again
// with them, and questions that came meanwhile are answered then. A container's
// namespace lives as long as somebody holds its sockets: that of a container which
// ends while no engine runs goes away with the next engine's start.
package nameserver
