"""Reads OpenMetrics with the parser of Prometheus' own client, which is strict, and writes what it found as JSON."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def exemplar(found):
    if found is None:
        return None
    return {"labels": found.labels, "value": found.value, "timestamp": float(found.timestamp)}


json.dump(
    [
        {
            "name": family.name,
            "type": family.type,
            "samples": [
                {
                    "name": sample.name,
                    "labels": sample.labels,
                    "value": sample.value,
                    "exemplar": exemplar(sample.exemplar),
                }
                for sample in family.samples
            ],
        }
        for family in text_string_to_metric_families(sys.stdin.read())
    ],
    sys.stdout,
)
