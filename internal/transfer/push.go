package transfer

// LocalRegistry is this engine's own registry.
type LocalRegistry interface {
}
