// Reads Prometheus' protobuf exposition with the official types and writes what they hold as JSON.
//
// Fails on a field that the types do not know.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/golang/protobuf/proto"
	dto "github.com/prometheus/client_model/go"
)

type bucket struct {
	Le       string            `json:"le"`
	Count    uint64            `json:"count"`
	Exemplar map[string]string `json:"exemplar,omitempty"`
}

type native struct {
	Index int    `json:"index"`
	Count uint64 `json:"count"`
}

type sample struct {
	Labels    map[string]string `json:"labels"`
	Value     *float64          `json:"value,omitempty"`
	Count     uint64            `json:"count"`
	Sum       float64           `json:"sum"`
	Schema    int32             `json:"schema"`
	ZeroCount uint64            `json:"zero_count"`
	Buckets   []bucket          `json:"buckets,omitempty"`
	Native    []native          `json:"native,omitempty"`
}

type family struct {
	Name    string   `json:"name"`
	Help    string   `json:"help"`
	Type    string   `json:"type"`
	Samples []sample `json:"samples"`
}

func labels(pairs []*dto.LabelPair) map[string]string {
	all := map[string]string{}
	for _, pair := range pairs {
		all[pair.GetName()] = pair.GetValue()
	}
	return all
}

func histogram(from *dto.Histogram, to *sample) {
	to.Count, to.Sum = from.GetSampleCount(), from.GetSampleSum()
	to.Schema, to.ZeroCount = from.GetSchema(), from.GetZeroCount()
	for _, one := range from.GetBucket() {
		read := bucket{
			Le:    strconv.FormatFloat(one.GetUpperBound(), 'g', -1, 64),
			Count: one.GetCumulativeCount(),
		}
		if one.Exemplar != nil {
			read.Exemplar = labels(one.Exemplar.Label)
		}
		to.Buckets = append(to.Buckets, read)
	}
	index, count, deltas := 0, int64(0), from.GetPositiveDelta()
	for _, span := range from.GetPositiveSpan() {
		index += int(span.GetOffset())
		for length := span.GetLength(); length > 0; length-- {
			count += deltas[0]
			deltas = deltas[1:]
			to.Native = append(to.Native, native{index, uint64(count)})
			index++
		}
	}
	if len(deltas) > 0 {
		panic("more deltas than buckets")
	}
}

func read(message *dto.MetricFamily) family {
	read := family{Name: message.GetName(), Help: message.GetHelp(), Type: message.GetType().String()}
	for _, metric := range message.Metric {
		sample := sample{Labels: labels(metric.Label)}
		switch message.GetType() {
		case dto.MetricType_COUNTER:
			sample.Value = metric.GetCounter().Value
		case dto.MetricType_GAUGE:
			sample.Value = metric.GetGauge().Value
		case dto.MetricType_HISTOGRAM:
			histogram(metric.GetHistogram(), &sample)
		default:
			panic("a type that weir has none of")
		}
		read.Samples = append(read.Samples, sample)
	}
	return read
}

func main() {
	input, families := bufio.NewReader(os.Stdin), []family{}
	for {
		length, err := binary.ReadUvarint(input)
		if err == io.EOF {
			break
		} else if err != nil {
			panic(err)
		}
		bytes, message := make([]byte, length), &dto.MetricFamily{}
		if _, err := io.ReadFull(input, bytes); err != nil {
			panic(err)
		}
		if err := proto.Unmarshal(bytes, message); err != nil {
			panic(err)
		}
		size := proto.Size(message)
		proto.DiscardUnknown(message)
		if proto.Size(message) != size {
			panic(fmt.Sprintf("%s has fields that nobody knows", message.GetName()))
		}
		families = append(families, read(message))
	}
	if err := json.NewEncoder(os.Stdout).Encode(families); err != nil {
		panic(err)
	}
}
