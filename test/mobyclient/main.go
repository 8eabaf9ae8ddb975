// Command mobyclient takes containers through their usual life with moby's own
// client for Go. It exists to show that programs written against that client
// work with this engine unchanged. Arguments: an image that the engine has, and
// the address of a registry.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

func main() {
	log.SetFlags(log.Lshortfile)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cli, err := client.New(client.FromEnv)
	must(err)
	defer cli.Close()
	_, err = cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	must(err)
	heard := cli.Events(ctx, client.EventsListOptions{})
	images(ctx, cli, os.Args[1], os.Args[2])
	containers(ctx, cli, os.Args[1])
	listen(ctx, heard)
	fmt.Println("moby's client is content")
}

func must(err error) {
	if err != nil {
		_ = log.Output(2, err.Error())
		os.Exit(1)
	}
}

func equal[T comparable](got, want T) {
	if got != want {
		_ = log.Output(2, fmt.Sprintf("got %v, want %v", got, want))
		os.Exit(1)
	}
}

// tarOf makes an archive of one file.
func tarOf(name, text string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
	_, err := io.WriteString(w, text)
	must(err)
	must(w.Close())
	return &b
}

// images builds, tags, pushes, pulls, inspects and removes.
func images(ctx context.Context, cli *client.Client, image, registry string) {
	built, err := cli.ImageBuild(ctx, tarOf("Dockerfile", "FROM "+image+"\nRUN echo built >/made\n"), client.ImageBuildOptions{Tags: []string{"go/built:1"}})
	must(err)
	said, err := io.ReadAll(built.Body)
	must(err)
	equal(strings.Contains(string(said), "Successfully tagged"), true)
	name := registry + "/go/box:1"
	_, err = cli.ImageTag(ctx, client.ImageTagOptions{Source: "go/built:1", Target: name})
	must(err)
	push, err := cli.ImagePush(ctx, name, client.ImagePushOptions{})
	must(err)
	must(push.Wait(ctx))
	for _, n := range []string{name, "go/built:1"} {
		_, err = cli.ImageRemove(ctx, n, client.ImageRemoveOptions{})
		must(err)
	}
	pull, err := cli.ImagePull(ctx, name, client.ImagePullOptions{})
	must(err)
	must(pull.Wait(ctx))
	one, err := cli.ImageInspect(ctx, name)
	must(err)
	equal(one.RepoTags[0], name)
	list, err := cli.ImageList(ctx, client.ImageListOptions{})
	must(err)
	equal(len(list.Items), 2)
	_, err = cli.ImageInspect(ctx, "no/such:1")
	equal(strings.Contains(fmt.Sprint(err), "No such image"), true)
}

// containers creates, attaches, starts, enters, copies, watches, changes, stops
// and removes.
func containers(ctx context.Context, cli *client.Client, image string) {
	for _, name := range []string{"go-net", "go-other"} {
		_, err := cli.NetworkCreate(ctx, name, client.NetworkCreateOptions{Driver: "bridge"})
		must(err)
	}
	_, err := cli.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "go-vol"})
	must(err)
	made, err := cli.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "go-box",
		Config:           &container.Config{Image: image, Cmd: []string{"sh", "-c", "read x; echo got $x; echo err >&2; sleep 1000"}, OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, AttachStderr: true},
		HostConfig:       &container.HostConfig{Binds: []string{"go-vol:/data"}, Resources: container.Resources{Memory: 64 << 20}},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"go-net": {Aliases: []string{"box"}}}}})
	must(err)
	stream, err := cli.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	must(err)
	_, err = cli.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	must(err)
	_, err = io.WriteString(stream.Conn, "input\n")
	must(err)
	logs, err := cli.ContainerLogs(ctx, made.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true})
	must(err)
	read, write := io.Pipe()
	go func() { _, _ = stdcopy.StdCopy(write, write, logs) }()
	first := make([]byte, len("got input\nerr\n"))
	_, err = io.ReadFull(read, first)
	must(err)
	equal(strings.Contains(string(first), "got input\n") && strings.Contains(string(first), "err\n"), true)
	logs.Close()
	stream.Close()

	enter(ctx, cli, made.ID)
	stats, err := cli.ContainerStats(ctx, made.ID, client.ContainerStatsOptions{})
	must(err)
	var sample container.StatsResponse
	must(json.NewDecoder(stats.Body).Decode(&sample))
	stats.Body.Close()
	equal(sample.MemoryStats.Limit, uint64(64<<20))
	change(ctx, cli, made.ID)

	waiting := cli.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = cli.ContainerKill(ctx, made.ID, client.ContainerKillOptions{Signal: "KILL"})
	must(err)
	select {
	case end := <-waiting.Result:
		equal(end.StatusCode, 137)
	case err := <-waiting.Error:
		must(err)
	}
	_, err = cli.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{RemoveVolumes: true})
	must(err)
	for _, name := range []string{"go-net", "go-other"} {
		_, err = cli.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
		must(err)
	}
	_, err = cli.VolumeRemove(ctx, "go-vol", client.VolumeRemoveOptions{})
	must(err)
	_, err = cli.DiskUsage(ctx, client.DiskUsageOptions{})
	must(err)
}

// enter runs a command in a container and copies files both ways.
func enter(ctx context.Context, cli *client.Client, id string) {
	_, err := cli.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/data", Content: tarOf("file", "copied")})
	must(err)
	run, err := cli.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "cat /data/file; exit 5"}, AttachStdout: true, AttachStderr: true})
	must(err)
	conn, err := cli.ExecAttach(ctx, run.ID, client.ExecAttachOptions{})
	must(err)
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, conn.Reader)
	must(err)
	conn.Close()
	equal(stdout.String(), "copied")
	state, err := cli.ExecInspect(ctx, run.ID, client.ExecInspectOptions{})
	must(err)
	equal(state.ExitCode, 5)
	from, err := cli.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: "/data/file"})
	must(err)
	defer from.Content.Close()
	equal(from.Stat.Name, "file")
	archive := tar.NewReader(from.Content)
	_, err = archive.Next()
	must(err)
	text, err := io.ReadAll(archive)
	must(err)
	equal(string(text), "copied")
}

// change connects, pauses, renames and lists.
func change(ctx context.Context, cli *client.Client, id string) {
	_, err := cli.NetworkConnect(ctx, "go-other", client.NetworkConnectOptions{Container: id})
	must(err)
	_, err = cli.ContainerPause(ctx, id, client.ContainerPauseOptions{})
	must(err)
	_, err = cli.ContainerUnpause(ctx, id, client.ContainerUnpauseOptions{})
	must(err)
	_, err = cli.ContainerRename(ctx, id, client.ContainerRenameOptions{NewName: "go-renamed"})
	must(err)
	top, err := cli.ContainerTop(ctx, id, client.ContainerTopOptions{})
	must(err)
	equal(len(top.Processes) > 0, true)
	_, err = cli.ContainerDiff(ctx, id, client.ContainerDiffOptions{})
	must(err)
	list, err := cli.ContainerList(ctx, client.ContainerListOptions{Filters: client.Filters{}.Add("name", "go-renamed")})
	must(err)
	equal(len(list.Items), 1)
	got, err := cli.ContainerInspect(ctx, "go-renamed", client.ContainerInspectOptions{})
	must(err)
	equal(len(got.Container.NetworkSettings.Networks), 2)
}

// listen reads what was told until everything that must be there was.
func listen(ctx context.Context, heard client.EventsResult) {
	missing := map[string]bool{"image push": true, "image pull": true, "container start": true, "container die": true, "container destroy": true, "network connect": true,
		"network destroy": true, "volume create": true, "volume destroy": true, "container rename": true}
	for len(missing) > 0 {
		select {
		case m := <-heard.Messages:
			delete(missing, string(m.Type)+" "+string(m.Action))
		case err := <-heard.Err:
			must(err)
		case <-ctx.Done():
			log.Fatalf("never told: %v", missing)
		}
	}
}
