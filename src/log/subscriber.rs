//! What `tracing` calls. Events only: weir has no spans in its log, so a span is nothing here.

use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::ring::{Shared, level_of};

/// Sends events into [`Shared`].
pub(super) struct LogSubscriber {
    shared: Arc<Shared>,
}

impl LogSubscriber {
    pub(super) fn new(shared: Arc<Shared>) -> LogSubscriber {
        LogSubscriber { shared }
    }
}

impl Subscriber for LogSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.shared.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.level_filter())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        self.shared
            .log(level_of(metadata.level()), metadata.target(), None, |line| {
                event.record(line)
            });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
