package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/client"
)

// diskUse is one kind of things that take room, as engines of API 1.52 and
// younger describe them.
type diskUse[T any] struct {
	ActiveCount, TotalCount int64
	Reclaimable, TotalSize  int64 // bytes
	Items                   []T
}

// diskUsage is what takes how much. Older engines list the things alone; what
// the lists add up to is worked out here.
type diskUsage struct {
	ImageUsage      *diskUse[client.ImageSummary]
	ContainerUsage  *diskUse[client.Summary]
	VolumeUsage     *diskUse[client.Volume]
	BuildCacheUsage *diskUse[cacheRecord]

	LayersSize int64
	Images     []client.ImageSummary
	Containers []client.Summary
	Volumes    []client.Volume
	BuildCache []cacheRecord

	Owners []ownedBytes // what each byte of the data directory is for; only of our engine
}

// ownedBytes is a part of the data directory and whom it belongs to.
type ownedBytes struct {
	Kind, Owner string
	Size        int64 // on disk, bytes
}

type cacheRecord struct {
	ID, Type, Description string
	InUse, Shared         bool
	Size                  int64 // bytes
	CreatedAt             time.Time
	LastUsedAt            *time.Time
	UsageCount            int
}

func buildDf(a *app, cmd *cobra.Command) {
	var layout string
	var verbose bool
	cmd.Flags().StringVar(&layout, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every single thing")
	cmd.Args = exactly(0, "no arguments")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		t, err := format.Parse(layout)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		raw, err := c.DiskUsage(cmd.Context(), verbose)
		if err != nil {
			return err
		}
		if verbose && t.Kind != format.Table {
			return a.printValues(t, raw)
		}
		var u diskUsage
		if err := json.Unmarshal(raw, &u); err != nil {
			return fmt.Errorf("read the engine's answer: %w", err)
		}
		u.settle()
		if verbose {
			return a.printUsage(&u)
		}
		rows := []format.Row{
			usageRow("Images", u.ImageUsage), usageRow("Containers", u.ContainerUsage),
			usageRow("Local Volumes", u.VolumeUsage), usageRow("Build Cache", u.BuildCacheUsage)}
		return a.listOf(false, "Type=TYPE TotalCount=TOTAL Active=ACTIVE Size=SIZE Reclaimable=RECLAIMABLE", "").Write(a.out, t, rows)
	}
}

func usageRow[T any](name string, u *diskUse[T]) format.Row {
	reclaimable := format.TotalBytes(u.Reclaimable)
	if u.TotalSize > 0 {
		reclaimable += fmt.Sprintf(" (%d%%)", u.Reclaimable*100/u.TotalSize)
	}
	return format.Row{Values: map[string]string{"Type": name, "TotalCount": strconv.FormatInt(u.TotalCount, 10),
		"Active": strconv.FormatInt(u.ActiveCount, 10), "Size": format.TotalBytes(u.TotalSize), "Reclaimable": reclaimable}}
}

// settle works out what an older engine leaves to its clients.
func (u *diskUsage) settle() {
	if u.ImageUsage == nil {
		u.ImageUsage = &diskUse[client.ImageSummary]{TotalCount: int64(len(u.Images)), TotalSize: u.LayersSize, Items: u.Images}
		used := int64(0)
		for _, i := range u.Images {
			if i.Containers > 0 {
				u.ImageUsage.ActiveCount++
				used += i.Size - max(i.SharedSize, 0)
			}
		}
		u.ImageUsage.Reclaimable = max(u.LayersSize-used, 0)
	}
	if u.ContainerUsage == nil {
		u.ContainerUsage = &diskUse[client.Summary]{TotalCount: int64(len(u.Containers)), Items: u.Containers}
		for _, c := range u.Containers {
			u.ContainerUsage.TotalSize += c.SizeRw
			if c.State == "running" || c.State == "paused" || c.State == "restarting" {
				u.ContainerUsage.ActiveCount++
			} else {
				u.ContainerUsage.Reclaimable += c.SizeRw
			}
		}
	}
	u.settleRest()
}

func (u *diskUsage) settleRest() {
	if u.VolumeUsage == nil {
		u.VolumeUsage = &diskUse[client.Volume]{TotalCount: int64(len(u.Volumes)), Items: u.Volumes}
		for _, v := range u.Volumes {
			if v.UsageData == nil || v.UsageData.Size < 0 {
				continue
			}
			u.VolumeUsage.TotalSize += v.UsageData.Size
			if v.UsageData.RefCount > 0 {
				u.VolumeUsage.ActiveCount++
			} else {
				u.VolumeUsage.Reclaimable += v.UsageData.Size
			}
		}
	}
	if u.BuildCacheUsage == nil {
		u.BuildCacheUsage = &diskUse[cacheRecord]{TotalCount: int64(len(u.BuildCache)), Items: u.BuildCache}
		for _, b := range u.BuildCache {
			u.BuildCacheUsage.TotalSize += b.Size
			if b.InUse {
				u.BuildCacheUsage.ActiveCount++
			} else if !b.Shared {
				u.BuildCacheUsage.Reclaimable += b.Size
			}
		}
	}
}

// printUsage lists every single thing.
func (a *app) printUsage(u *diskUsage) error {
	now := time.Now()
	table, _ := format.Parse("") // always parses
	section := func(heading, columns string, rows []format.Row) error {
		fmt.Fprintf(a.out, "%s\n\n", heading)
		if err := a.listOf(false, columns, "").Write(a.out, table, rows); err != nil {
			return err
		}
		fmt.Fprintln(a.out)
		return nil
	}
	var images, containers, volumes, cache []format.Row
	for i := range u.ImageUsage.Items {
		images = append(images, imageRows(&u.ImageUsage.Items[i], &imagesFlags{}, now)...)
	}
	for i := range u.ContainerUsage.Items {
		row := containerRow(&u.ContainerUsage.Items[i], now, false)
		row.Values["Size"], _, _ = strings.Cut(row.Values["Size"], " (")
		containers = append(containers, row)
	}
	for _, v := range u.VolumeUsage.Items {
		links, size := "N/A", "N/A"
		if v.UsageData != nil {
			links, size = countOrNA(v.UsageData.RefCount), sizeOrNA(v.UsageData.Size)
		}
		volumes = append(volumes, format.Row{Values: map[string]string{"Name": v.Name, "Links": links, "Size": size}})
	}
	for _, b := range u.BuildCacheUsage.Items {
		last := "N/A"
		if b.LastUsedAt != nil {
			last = format.Since(b.LastUsedAt.Unix(), now)
		}
		cache = append(cache, format.Row{Values: map[string]string{"ID": format.Truncate(b.ID, 12), "Type": b.Type, "Size": format.Bytes(b.Size),
			"Created": format.Since(b.CreatedAt.Unix(), now), "Last": last, "Usage": strconv.Itoa(b.UsageCount), "Shared": strconv.FormatBool(b.Shared)}})
	}
	if err := section("Images space usage:", "Repository~=REPOSITORY Tag=TAG ID=IMAGE_ID CreatedSince=CREATED Size=SIZE SharedSize=SHARED_SIZE "+
		"UniqueSize=UNIQUE_SIZE Containers=CONTAINERS", images); err != nil {
		return err
	}
	if err := section("Containers space usage:", "ID=CONTAINER_ID Image~=IMAGE Command~=COMMAND LocalVolumes=LOCAL_VOLUMES Size=SIZE "+
		"RunningFor=CREATED Status=STATUS Names=NAMES", containers); err != nil {
		return err
	}
	if err := section("Local Volumes space usage:", "Name~=VOLUME_NAME Links=LINKS Size=SIZE", volumes); err != nil {
		return err
	}
	if err := section("Build cache usage: "+format.TotalBytes(u.BuildCacheUsage.TotalSize), "ID=CACHE_ID Type=CACHE_TYPE Size=SIZE Created=CREATED "+
		"Last=LAST_USED Usage=USAGE Shared=SHARED", cache); err != nil || len(u.Owners) == 0 {
		return err
	}
	total, owners := ownerRows(u.Owners)
	return section("Data directory: "+format.TotalBytes(total), "Kind=KIND Owner~=OWNER Size=SIZE", owners)
}

// ownerRows adds up what each owner has, the largest first.
func ownerRows(parts []ownedBytes) (total int64, rows []format.Row) {
	type owner struct{ kind, name string }
	sums := map[owner]int64{}
	for _, p := range parts {
		sums[owner{p.Kind, p.Owner}] += p.Size
		total += p.Size
	}
	order := slices.SortedFunc(maps.Keys(sums), func(a, b owner) int {
		return cmp.Or(cmp.Compare(sums[b], sums[a]), strings.Compare(a.kind+a.name, b.kind+b.name))
	})
	for _, o := range order {
		rows = append(rows, format.Row{Values: map[string]string{"Kind": o.kind, "Owner": o.name, "Size": format.Bytes(sums[o])}})
	}
	return total, rows
}
