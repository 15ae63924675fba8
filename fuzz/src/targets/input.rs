//! A fuzzer's bytes as choices. It never runs out: after its end every choice is 0.

pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next `length` bytes, or as many as are left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Some bytes; the first one says how many.
    pub fn blob(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(usize::from(length))
    }

    pub fn rest(&mut self) -> &'a [u8] {
        self.take(self.rest.len())
    }
}

/// The lengths of the pieces that a stream is received in, over and over.
pub struct Pieces([usize; 3]);

impl Pieces {
    pub fn choose(input: &mut Input<'_>) -> Self {
        Pieces([(); 3].map(|()| usize::from(input.byte()) + 1))
    }

    pub fn of<'s>(&self, stream: &'s [u8]) -> impl Iterator<Item = &'s [u8]> {
        let mut stream = Input::new(stream);
        let pieces = self.0.into_iter().cycle().map(move |length| stream.take(length));
        pieces.take_while(|piece| !piece.is_empty())
    }
}
