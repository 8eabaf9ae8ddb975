// Package tree reads and changes file trees for builds: the caller's directory,
// and stacks of layers. It exists because this is where hostile names meet root:
// every path is resolved by the kernel below a directory that is held open, so
// that neither a link in a context nor one in a layer, nor one that is swapped
// meanwhile, leads anywhere else.
package tree
