package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"berth/internal/cli/progress"
	"berth/internal/cli/spec"
	"berth/internal/cli/terminal"
	"berth/internal/client"
)

// source is an archive on its way to the engine.
type source struct {
	io.Reader
	file  *os.File
	size  int64 // 0 when not known
	sent  int64
	shown *progress.Display
}

// openSource opens a file, standard input for "-".
func (a *app) openSource(path string) (*source, error) {
	if path == "-" {
		return &source{Reader: a.in}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &source{Reader: f, file: f}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		s.size = info.Size()
	} else if err == nil && info.IsDir() {
		_ = f.Close()
		return nil, wrong("%s is a directory", path).WithHint("pack it first: tar -C %s -c . | berth import -", path)
	}
	return s, nil
}

// Read counts what has been sent.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.sent += int64(n)
	if s.shown != nil && n > 0 {
		s.shown.Sent(s.sent, s.size)
	}
	return n, err
}

func (s *source) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

const loadExample = `  berth load -i images.tar
  xz -dc images.tar.xz | berth load`

func buildLoad(a *app, cmd *cobra.Command) {
	var input string
	var platforms []string
	var quiet bool
	cmd.Flags().StringVarP(&input, "input", "i", "", "`FILE` read the archive from it, not from standard input")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not show the progress")
	spec.List(cmd.Flags(), &platforms, "platform", "", "`OS/ARCH` load these platforms alone")
	cmd.Args = exactly(0, "no arguments; name the archive with -i")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if input == "" {
			if terminal.Is(a.in) {
				return wrong("load reads an archive from standard input, which is a terminal").WithHint("name the file: berth load -i FILE")
			}
			input = "-"
		}
		from, err := a.openSource(input)
		if err != nil {
			return err
		}
		defer from.close()
		c, err := a.engine()
		if err != nil {
			return err
		}
		show := a.display(a.out, false)
		if !quiet {
			from.shown = show
		}
		update := func(m client.Progress) {
			if !quiet || m.Stream != "" {
				show.Update(m)
			}
		}
		err = c.ImageLoad(cmd.Context(), from, quiet, platforms, update)
		show.Close()
		return err
	}
}

const importExample = `  tar -C rootfs -c . | berth import - base:1
  berth import -c 'CMD ["/bin/sh"]' rootfs.tar.gz base:1`

func buildImport(a *app, cmd *cobra.Command) {
	var o client.ImportOptions
	spec.List(cmd.Flags(), &o.Changes, "change", "c", "`INSTRUCTION` apply one of a Dockerfile to the image")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "`TEXT` remark for the image's history")
	cmd.Flags().StringVar(&o.Platform, "platform", "", "`OS/ARCH` say what the files are for")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 || len(args) == 2 {
			return nil
		}
		return badUsage(cmd, "%s needs a file, and may have a name for the image", cmd.CommandPath())
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			o.Ref = args[1]
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		var from io.Reader = strings.NewReader("")
		show := a.display(a.err, false)
		if strings.HasPrefix(args[0], "http://") || strings.HasPrefix(args[0], "https://") {
			o.URL = args[0]
		} else {
			file, err := a.openSource(args[0])
			if err != nil {
				return err
			}
			defer file.close()
			file.shown = show
			from = file
		}
		id, err := c.ImageImport(cmd.Context(), o, from)
		show.Close()
		if err == nil {
			fmt.Fprintln(a.out, id)
		}
		return err
	}
}
