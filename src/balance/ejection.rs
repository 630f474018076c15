use super::breaker::Permit;
use super::outlier::EjectReason;
use crate::clock::Millis;
use std::time::Duration;
#[derive(Debug, Default)]
pub struct Ejection;
pub enum EjectionEffect {
    None,
    Returned,
    EjectedAgain(Duration),
}
impl Ejection {
    pub fn eject(&self, _now: Millis, _base: Duration, _r: EjectReason) -> Option<Duration> {
        None
    }
    pub fn due(&self, _now: Millis) -> bool {
        false
    }
    pub fn trial_now(&self) -> bool {
        false
    }
    pub fn admit(&self) -> Option<Permit> {
        Some(Permit::Free)
    }
    pub fn trial_free(&self) -> bool {
        true
    }
    pub fn is_on_trial(&self) -> bool {
        false
    }
    pub fn give_back(&self, _p: Permit) {}
    pub fn cancel(&self) {}
    pub fn reason(&self) -> EjectReason {
        EjectReason::Refused
    }
    pub fn settle(&self, _p: Permit, _f: bool, _n: Millis, _b: Duration) -> EjectionEffect {
        EjectionEffect::None
    }
}
