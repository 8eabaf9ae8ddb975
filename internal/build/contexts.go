package build

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"berth/internal/build/dockerfile"
	"berth/internal/build/gitref"
	"berth/internal/build/source"
	"berth/internal/fault"
)

// Receive begins to take over a directory of a client elsewhere, which a build is
// then given in Request.Sent.
func (b *Builder) Receive(ctx context.Context, sent source.Sent) (*source.Incoming, error) {
	return b.solver.Sources().Receive(ctx, sent)
}

// open makes the contexts ready and reads the Dockerfile.
func (o *one) open(ctx context.Context) error {
	s := o.b.solver.Sources()
	r := o.req
	ignoreFor := o.file
	if err := o.receive(ctx); err != nil {
		return err
	}
	main := o.contexts[MainContext]
	var err error
	switch {
	case main != nil:
	case r.ContextDir != "":
		main, err = s.Local(r.ContextDir, r.Credentials, ignoreFor)
	case r.Archive != nil:
		main, err = s.Archive(ctx, r.Archive, ignoreFor)
	case r.Remote != "":
		ref, git, gerr := gitref.Parse(r.Remote)
		switch {
		case gerr != nil:
			err = gerr
		case git:
			if keep, kerr := strconv.ParseBool(r.Args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); kerr == nil && ref.KeepDir == nil {
				ref.KeepDir = &keep
			}
			var agent string
			if agent, err = o.agent(ctx, ref.Remote); err == nil {
				main, err = s.Repository(ctx, ref, agent, ignoreFor)
			}
		default:
			main, err = s.URL(ctx, r.Remote, o.file)
		}
	default:
		main, err = s.Files(nil, "")
	}
	if err != nil {
		return err
	}
	o.contexts[MainContext] = main
	if o.text = r.Text; o.text != nil {
		return nil
	}
	o.text, err = main.ReadFile(o.file, dockerfile.MaxSize)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Invalid, "read Dockerfile", o.file, "failed to read dockerfile: the build context has no such file").
			WithHint("name it with -f, relative to the build context")
	}
	return err
}

// receive takes in what the client sends of its directories.
func (o *one) receive(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(o.req.Sent)) {
		in, err := o.b.solver.Sources().Claim(o.req.Sent[name])
		if err != nil {
			return err
		}
		if err := in.Fill(ctx, o.req.Contents); err != nil {
			in.Release()
			return err
		}
		dockerfile := ""
		if name == MainContext {
			dockerfile = o.file
		}
		if o.contexts[name], err = in.Context(dockerfile); err != nil {
			delete(o.contexts, name)
			return err
		}
	}
	return nil
}

// agent returns the socket of the caller's ssh agent for a repository, "" without
// one.
func (o *one) agent(ctx context.Context, remote string) (string, error) {
	if o.req.Secrets == nil || !gitref.OverSSH(remote) {
		return "", nil
	}
	dial, err := o.req.Secrets.Agent("default")
	if err != nil {
		return "", nil // git will say that it may not read it
	}
	socket, release, err := o.b.solver.AgentSocket(ctx, dial, 0, 0, 0o600)
	if err == nil {
		o.closers = append(o.closers, release)
	}
	return socket, err
}

// named reads the named contexts and opens those that are directories.
func (o *one) named(ctx context.Context) (map[string]dockerfile.NamedContext, error) {
	out := map[string]dockerfile.NamedContext{}
	for name := range o.req.Sent {
		if name != MainContext {
			out[name] = dockerfile.NamedContext{Kind: dockerfile.LocalContext, Value: name}
		}
	}
	for name, value := range o.req.Contexts {
		if name == MainContext {
			return nil, fault.New(fault.Invalid, "read named context", name, "the name is that of the main context")
		}
		ref, isImage := strings.CutPrefix(value, "docker-image://")
		_, git, err := gitref.Parse(value)
		switch {
		case err != nil:
			return nil, err
		case isImage:
			out[name] = dockerfile.NamedContext{Kind: dockerfile.ImageContext, Value: ref}
		case strings.HasPrefix(value, layoutScheme):
			id, err := o.layoutImage(ctx, name, strings.TrimPrefix(value, layoutScheme))
			if err != nil {
				return nil, err
			}
			out[name] = dockerfile.NamedContext{Kind: dockerfile.ImageContext, Value: id}
		case git:
			out[name] = dockerfile.NamedContext{Kind: dockerfile.GitContext, Value: value}
		case strings.HasPrefix(value, "http://"), strings.HasPrefix(value, "https://"):
			out[name] = dockerfile.NamedContext{Kind: dockerfile.HTTPContext, Value: value}
		case strings.Contains(value, "://"):
			return nil, fault.New(fault.Unsupported, "read named context", name, "%q is of no known kind", value).
				WithHint("give a directory, docker-image://NAME, oci-layout://DIR@DIGEST, or the address of a repository or an archive")
		default:
			c, err := o.b.solver.Sources().Local(value, o.req.Credentials, "")
			if err != nil {
				return nil, err
			}
			o.contexts[name] = c
			out[name] = dockerfile.NamedContext{Kind: dockerfile.LocalContext, Value: name}
		}
	}
	return out, nil
}
