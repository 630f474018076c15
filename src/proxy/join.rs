//! Running the two directions of one exchange at once, within its task.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

/// Runs both futures until `second` is done, or `first` ends with something that `stops` says makes the other pointless.
/// Gives what each came to, if it did; whoever is not done is dropped.
pub async fn until_second<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
    stops: impl Fn(&A) -> bool,
) -> (Option<A>, Option<B>) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut first_result = None;
    let second_result = poll_fn(|cx| {
        // The first one first: what it has to say may matter to the second, whose end is the end of both.
        if first_result.is_none()
            && let Poll::Ready(result) = first.as_mut().poll(cx)
        {
            first_result = Some(result);
        }
        if let Poll::Ready(result) = second.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        if first_result.as_ref().is_some_and(&stops) {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await;
    (first_result, second_result)
}

/// Runs both futures to their ends.
pub async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|cx| {
        if a.is_none()
            && let Poll::Ready(result) = first.as_mut().poll(cx)
        {
            a = Some(result);
        }
        if b.is_none()
            && let Poll::Ready(result) = second.as_mut().poll(cx)
        {
            b = Some(result);
        }
        match (a.take(), b.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            (first, second) => {
                (a, b) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

/// Lets the other tasks of the thread run once: whoever waits in its queue comes before the task that is awaited here.
/// One that wakes itself would not do: monoio puts it first.
pub async fn yield_now() {
    monoio::spawn(async {}).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
                return result;
            }
        }
    }

    #[test]
    fn the_second_ends_it_and_the_first_only_when_it_stops() {
        assert_eq!(
            block_on(until_second(ready(1), ready(2), |_| true)),
            (Some(1), Some(2))
        );
        assert_eq!(
            block_on(until_second(pending::<u8>(), ready(2), |_| true)),
            (None, Some(2))
        );
        assert_eq!(
            block_on(until_second(ready(1), pending::<u8>(), |_| true)),
            (Some(1), None)
        );
        let mut polls = 0;
        let late = poll_fn(|_| {
            polls += 1;
            if polls == 3 { Poll::Ready(2) } else { Poll::Pending }
        });
        assert_eq!(
            block_on(until_second(ready(1), late, |_| false)),
            (Some(1), Some(2))
        );
    }

    #[test]
    fn both_wait_for_each_other() {
        let mut polls = 0;
        let late = poll_fn(|_| {
            polls += 1;
            if polls == 3 { Poll::Ready(2) } else { Poll::Pending }
        });
        assert_eq!(block_on(both(ready(1), late)), (1, 2));
    }
}
