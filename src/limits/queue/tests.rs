//! Several workers on one thread, in every order that a random source finds; and on real threads.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Wake;
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::*;
use crate::balance::shared::Shared;

const NEVER: Millis = Millis::NEVER;

/// Says whether its task wants to be polled.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

type Future<'a> = Pin<Box<dyn std::future::Future<Output = Result<(), QueueError>> + 'a>>;

struct Task<'a> {
    future: Future<'a>,
    flag: Arc<Flag>,
}

impl<'a> Task<'a> {
    fn new(future: impl std::future::Future<Output = Result<(), QueueError>> + 'a) -> Self {
        Task {
            future: Box::pin(future),
            flag: Arc::new(Flag(AtomicBool::new(true))),
        }
    }

    fn is_ready(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) -> Poll<Result<(), QueueError>> {
        self.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.flag.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// Slots as a test sees them.
#[derive(Default)]
struct Slots(Cell<u32>);

impl Slots {
    fn take(&self) -> Take<()> {
        match self.0.get() {
            0 => Take::Full,
            free => {
                self.0.set(free - 1);
                Take::Taken(())
            }
        }
    }

    fn give_back(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// The lines of `workers` workers on this thread, and which of them have been woken.
fn lines(workers: usize, max: u32) -> (Vec<Queue>, Rc<RefCell<Vec<usize>>>) {
    let shared = QueueShared::new(workers, max);
    let woken = Rc::new(RefCell::new(Vec::new()));
    let queues = (0..workers)
        .map(|index| {
            let woken = woken.clone();
            Queue::new(shared.clone(), index, move |worker| {
                woken.borrow_mut().push(worker)
            })
        })
        .collect();
    (queues, woken)
}

#[track_caller]
fn is_clean(queues: &[Queue]) {
    let shared = &queues[0].shared;
    assert_eq!(shared.waiting(), 0);
    assert_eq!(shared.bar.load(Ordering::SeqCst), 0, "bar");
    assert_eq!(shared.oldest(), None);
    for (queue, line) in queues.iter().zip(&shared.workers) {
        assert_eq!(queue.waiting(), 0);
        assert_eq!(line.front.load(Ordering::SeqCst), NOBODY);
        assert!(
            line.offers
                .iter()
                .all(|offers| offers.load(Ordering::SeqCst) == 0)
        );
    }
}

#[test]
fn while_there_is_room_nobody_waits() {
    let (queues, _) = lines(1, 0);
    let slots = Slots(Cell::new(1));
    assert_eq!(
        Task::new(queues[0].wait(NEVER, || slots.take())).poll(),
        Poll::Ready(Ok(()))
    );
    // And with none, and nobody allowed to wait:
    assert_eq!(
        Task::new(queues[0].wait(NEVER, || slots.take())).poll(),
        Poll::Ready(Err(QueueError::Full))
    );
    is_clean(&queues);
}

#[test]
fn first_come_first_served_and_no_newcomer_between() {
    let (queues, _) = lines(1, 10);
    let queue = &queues[0];
    let slots = Slots::default();
    let mut tasks: Vec<_> = (0..3)
        .map(|_| Task::new(queue.wait(NEVER, || slots.take())))
        .collect();
    for task in &mut tasks {
        assert!(task.poll().is_pending());
    }
    slots.give_back();
    queue.notify_freed();
    assert_eq!(
        tasks.iter().map(Task::is_ready).collect::<Vec<_>>(),
        [true, false, false]
    );
    // The slot is free and its waiter has not run yet: a newcomer does not get it.
    let mut newcomer = Task::new(queue.wait(NEVER, || slots.take()));
    assert!(newcomer.poll().is_pending());
    assert_eq!(tasks[0].poll(), Poll::Ready(Ok(())));
    for _ in 0..3 {
        slots.give_back();
        queue.notify_freed();
    }
    for task in tasks.iter_mut().skip(1).chain([&mut newcomer]) {
        assert!(task.is_ready());
        assert_eq!(task.poll(), Poll::Ready(Ok(())));
    }
    is_clean(&queues);
}

#[test]
fn so_many_may_wait_over_all_workers() {
    let (queues, _) = lines(2, 2);
    let slots = Slots::default();
    let wait = |worker: usize| Task::new(queues[worker].wait(NEVER, || slots.take()));
    let (mut one, mut two, mut three) = (wait(0), wait(1), wait(0));
    assert!(one.poll().is_pending() && two.poll().is_pending());
    assert_eq!(three.poll(), Poll::Ready(Err(QueueError::Full)));
    drop(one);
    let mut four = wait(1);
    assert!(four.poll().is_pending());
    queues[0].shared.set_max(3);
    assert!(wait(0).poll().is_pending());
    drop((two, four));
    is_clean(&queues);
}

#[test]
fn time_is_up_at_a_sweep() {
    let (queues, _) = lines(1, 10);
    let queue = &queues[0];
    let slots = Slots::default();
    let mut short = Task::new(queue.wait(Millis(100), || slots.take()));
    let mut long = Task::new(queue.wait(Millis(200), || slots.take()));
    assert!(short.poll().is_pending() && long.poll().is_pending());
    queue.sweep(Millis(99));
    // The sweep offers a try, which finds nothing.
    assert!(short.is_ready() && short.poll().is_pending());
    queue.sweep(Millis(100));
    assert_eq!(short.poll(), Poll::Ready(Err(QueueError::Timeout)));
    assert!(long.poll().is_pending());
    drop((short, long));
    is_clean(&queues);
}

#[test]
fn a_slot_freed_elsewhere_goes_to_whoever_waited_longest() {
    let (queues, woken) = lines(3, 10);
    let slots = Slots::default();
    let wait = |worker: usize| Task::new(queues[worker].wait(NEVER, || slots.take()));
    let (mut first, mut second, mut third) = (wait(1), wait(0), wait(2));
    assert!(first.poll().is_pending() && second.poll().is_pending() && third.poll().is_pending());
    // Worker 2 frees three before worker 1 has looked: one wake.
    for _ in 0..3 {
        slots.give_back();
        queues[2].notify_freed();
    }
    assert_eq!(*woken.borrow(), [1]);
    assert!(![&first, &second, &third].iter().any(|task| task.is_ready()));
    // Worker 1 has one waiter and sends the others on to where they belong.
    queues[1].serve();
    assert!(first.is_ready());
    assert_eq!(*woken.borrow(), [1, 0]);
    queues[0].serve();
    queues[2].serve();
    for task in [&mut first, &mut second, &mut third] {
        assert_eq!(task.poll(), Poll::Ready(Ok(())));
    }
    is_clean(&queues);
}

#[test]
fn whoever_goes_away_hands_its_offer_on() {
    let (queues, _) = lines(2, 10);
    let slots = Slots::default();
    let wait = |worker: usize| Task::new(queues[worker].wait(NEVER, || slots.take()));
    let (mut first, mut second) = (wait(0), wait(1));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    slots.give_back();
    queues[0].notify_freed();
    assert!(first.is_ready());
    drop(first);
    queues[1].serve();
    assert!(second.is_ready());
    assert_eq!(second.poll(), Poll::Ready(Ok(())));
    is_clean(&queues);
}

#[test]
fn who_cannot_use_a_slot_holds_up_nobody() {
    let (queues, _) = lines(2, 10);
    let (slots, other) = (Slots::default(), Slots::default());
    // The first wants one of `other` and sees that there is room elsewhere.
    let choosy = || match (other.take(), slots.0.get()) {
        (Take::Full, 1..) => Take::Unfit,
        (take, _) => take,
    };
    let mut first = Task::new(queues[0].wait(NEVER, choosy));
    let mut second = Task::new(queues[1].wait(NEVER, || slots.take()));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    slots.give_back();
    queues[0].notify_freed();
    assert!(first.poll().is_pending());
    queues[1].serve();
    assert_eq!(second.poll(), Poll::Ready(Ok(())));
    // Room that it has declined is there for newcomers at once.
    slots.give_back();
    queues[0].notify_freed();
    assert!(first.poll().is_pending());
    assert_eq!(
        Task::new(queues[0].wait(NEVER, || slots.take())).poll(),
        Poll::Ready(Ok(()))
    );
    // It is still asked first for what it can use.
    let mut third = Task::new(queues[0].wait(NEVER, || Take::<()>::Full));
    assert!(third.poll().is_pending());
    other.give_back();
    queues[1].notify_freed();
    queues[0].serve();
    assert!(first.is_ready() && !third.is_ready());
    assert_eq!(first.poll(), Poll::Ready(Ok(())));
    drop(third);
    is_clean(&queues);
}

#[test]
fn declining_is_bounded() {
    let (queues, _) = lines(1, 100);
    let queue = &queues[0];
    let asked = Cell::new(0);
    let mut tasks: Vec<_> = (0..20)
        .map(|_| {
            Task::new(queue.wait(NEVER, || {
                asked.set(asked.get() + 1);
                Take::Unfit
            }))
        })
        .collect();
    for task in &mut tasks {
        assert!(task.poll().is_pending());
    }
    run(&mut tasks);
    asked.set(0);
    queue.notify_freed();
    run(&mut tasks);
    assert_eq!(asked.get(), u32::from(ASKED_MAX));
}

/// Polls until nobody wants to be polled.
fn run(tasks: &mut [Task<'_>]) {
    while let Some(task) = tasks.iter_mut().find(|task| task.is_ready()) {
        let _ = task.poll();
    }
}

/// A waiter of the random walk.
struct Walker<'a> {
    worker: usize,
    task: Task<'a>,
    /// Its number in order of arrival.
    arrived: usize,
    /// Those who came later and got a slot while it had no offer.
    passed_over: usize,
}

/// Whoever came before and has no slot on its way to it was passed over.
fn note_overtaking(waiting: &mut [Walker<'_>], queues: &[Queue], served: usize) {
    for other in waiting.iter_mut().filter(|other| other.arrived < served) {
        let line = &queues[0].shared.workers[other.worker];
        let under_way = line.offers.iter().any(|offers| offers.load(Ordering::SeqCst) > 0);
        other.passed_over += usize::from(!under_way && !other.task.is_ready());
    }
}

/// Workers, waiters and slots take steps in a random order; gives the most that anybody was passed over.
fn walk(seed: u64, workers: usize, slots_in_all: u32, cancel: bool) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (queues, woken) = lines(workers, 1000);
    let slots = Slots(Cell::new(slots_in_all));
    let mut waiting: Vec<Walker> = Vec::new();
    let (mut holding, mut arrivals, mut worst) = (0, 0, 0);
    for step in 0..3_000 {
        if seed == 58 {
            println!(
                "{step}: free {} holding {holding} woken {:?} spare {:?} bar {:x} waiting {:?} offers {:?}",
                slots.0.get(),
                woken.borrow(),
                queues[0].shared.spare,
                queues[0].shared.bar.load(Ordering::SeqCst),
                queues
                    .iter()
                    .map(|q| q
                        .line
                        .borrow()
                        .iter()
                        .map(|w| (w.number, matches!(w.state, State::Offered(_))))
                        .collect::<Vec<_>>())
                    .collect::<Vec<_>>(),
                queues
                    .iter()
                    .map(|q| q.shared.workers[q.index]
                        .offers
                        .iter()
                        .map(|o| o.load(Ordering::SeqCst))
                        .collect::<Vec<_>>())
                    .collect::<Vec<_>>()
            );
        }
        let settling = step >= 2_000;
        match rng.u8(..if settling { 3 } else { 6 }) {
            0 if !woken.borrow().is_empty() => {
                let at = rng.usize(..woken.borrow().len());
                let worker = woken.borrow_mut().swap_remove(at);
                queues[worker].serve();
            }
            1 => {
                let ready: Vec<_> = (0..waiting.len())
                    .filter(|&at| waiting[at].task.is_ready())
                    .collect();
                let Some(&at) = rng.choice(&ready) else {
                    continue;
                };
                if cancel && rng.u8(..8) == 0 {
                    waiting.swap_remove(at);
                    continue;
                }
                if waiting[at].task.poll().is_ready() {
                    let served = waiting.swap_remove(at);
                    holding += 1;
                    worst = worst.max(served.passed_over);
                    note_overtaking(&mut waiting, &queues, served.arrived);
                }
            }
            2 | 3 if holding > 0 => {
                holding -= 1;
                slots.give_back();
                queues[rng.usize(..workers)].notify_freed();
            }
            4 | 5 => {
                let worker = rng.usize(..workers);
                let task = Task::new(queues[worker].wait(NEVER, || slots.take()));
                waiting.push(Walker {
                    worker,
                    task,
                    arrived: usize::MAX,
                    passed_over: 0,
                });
                let walker = waiting.last_mut().expect("just pushed");
                walker.arrived = arrivals;
                arrivals += 1;
                if walker.task.poll().is_ready() {
                    let served = waiting.pop().expect("just pushed");
                    holding += 1;
                    note_overtaking(&mut waiting, &queues, served.arrived);
                }
            }
            _ => {}
        }
        if woken.borrow().is_empty() && !waiting.iter().any(|walker| walker.task.is_ready()) {
            assert!(
                waiting.is_empty() || slots.0.get() == 0,
                "seed {seed}: {} wait although {} are free",
                waiting.len(),
                slots.0.get()
            );
        }
    }
    worst = waiting
        .iter()
        .map(|walker| walker.passed_over)
        .fold(worst, usize::max);
    waiting.clear();
    while let Some(worker) = { woken.borrow_mut().pop() } {
        queues[worker].serve();
    }
    is_clean(&queues);
    worst
}

#[test]
fn no_waiter_is_passed_over_twice_and_no_slot_lies_idle() {
    for seed in 0..300 {
        let workers = 1 + seed as usize % 4;
        let slots = 1 + (seed / 4) as u32 % 4;
        let worst = walk(seed, workers, slots, seed % 2 == 1);
        assert!(worst <= 1, "seed {seed}: passed over {worst} times");
    }
}

/// A worker with a thread of its own, its eventfd a flag and a parked thread.
fn stress(workers: usize, tasks: usize, turns: usize, max: u32) {
    let backend = Shared::default();
    let shared = QueueShared::new(workers, 10_000);
    let (running, most, finished) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let bells: Vec<_> = (0..workers).map(|_| Arc::new(AtomicBool::new(false))).collect();
    let threads = Arc::new(Mutex::new(Vec::<Thread>::new()));
    std::thread::scope(|scope| {
        for index in 0..workers {
            let (backend, shared, bells) = (&backend, shared.clone(), bells.clone());
            let (running, most, finished) = (&running, &most, &finished);
            let known = threads.clone();
            let handle = scope.spawn(move || {
                let bell = bells[index].clone();
                let queue = Queue::new(shared, index, move |worker: usize| {
                    bells[worker].store(true, Ordering::SeqCst);
                    if let Some(thread) = known.lock().expect("no panic").get(worker) {
                        thread.unpark();
                    }
                });
                let mut own: Vec<_> = (0..tasks)
                    .map(|task| {
                        let queue = &queue;
                        let mut rng = fastrand::Rng::with_seed((index * tasks + task) as u64);
                        Some(Task::new(async move {
                            for _ in 0..turns {
                                let take = || match backend.try_begin(Millis(1), max) {
                                    true => Take::Taken(()),
                                    false => Take::Full,
                                };
                                queue.wait(NEVER, take).await?;
                                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                for _ in 0..rng.u8(..3) {
                                    yield_once().await;
                                }
                                running.fetch_sub(1, Ordering::SeqCst);
                                backend.end();
                                queue.notify_freed();
                            }
                            Ok(())
                        }))
                    })
                    .collect();
                let deadline = Instant::now() + Duration::from_secs(60);
                while own.iter().any(Option::is_some) {
                    let mut idle = true;
                    if bell.swap(false, Ordering::SeqCst) {
                        queue.serve();
                    }
                    for slot in &mut own {
                        let Some(task) = slot.as_mut().filter(|task| task.is_ready()) else {
                            continue;
                        };
                        idle = false;
                        if let Poll::Ready(end) = task.poll() {
                            assert_eq!(end, Ok(()));
                            finished.fetch_add(1, Ordering::SeqCst);
                            *slot = None;
                        }
                    }
                    // Never swept: nothing may depend on it.
                    if idle && !bell.load(Ordering::SeqCst) {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                    assert!(Instant::now() < deadline, "{} wait for ever", queue.waiting());
                }
            });
            threads.lock().expect("no panic").push(handle.thread().clone());
        }
    });
    assert_eq!(finished.into_inner(), (workers * tasks) as u32);
    assert!((1..=max).contains(&most.into_inner()));
    assert_eq!(backend.in_flight(), 0);
    assert_eq!(shared.waiting(), 0);
    assert_eq!(shared.bar.load(Ordering::SeqCst), 0);
}

async fn yield_once() {
    let mut polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn on_real_threads_everybody_is_served() {
    stress(2, 20, 500, 1);
    stress(2, 20, 500, 3);
    stress(4, 10, 300, 2);
}

#[test]
fn a_waiting_exchange_is_small() {
    let (queues, _) = lines(1, 1);
    let future = pin!(queues[0].wait(NEVER, || Take::<()>::Full));
    assert!(size_of_val(&*future) <= 128, "{}", size_of_val(&*future));
}
