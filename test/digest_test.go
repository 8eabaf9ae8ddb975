package test

import (
	"crypto/sha256"
	"fmt"
)

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }
