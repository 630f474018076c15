use crate::clock::Millis;
#[derive(Debug)]
pub struct RetryBudget;
impl RetryBudget {
    pub fn new(_p: u8, _m: f32) -> Self {
        RetryBudget
    }
    pub fn request(&mut self, _n: Millis) {}
    pub fn take(&mut self, _n: Millis) -> bool {
        true
    }
    pub fn give_back(&mut self, _n: Millis) {}
}
