// Package test holds what only the whole house can show: end-to-end scenarios
// with real clients and peers, fault injection, and the rules of the house.
// Every scenario has an engine of its own, in network and mount namespaces of
// its own, so that scenarios run beside one another and leave nothing behind.
package test
