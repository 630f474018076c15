use super::outcome::Outcome;
use crate::config::model::Outlier;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectReason {
    Refused,
}
impl EjectReason {
    pub fn word(self) -> &'static str {
        ""
    }
}
#[derive(Debug, Default)]
pub struct Streak;
impl Streak {
    pub fn record(&self, _o: Outcome, _s: &Outlier) -> Option<EjectReason> {
        None
    }
    pub fn clear(&self) {}
}
