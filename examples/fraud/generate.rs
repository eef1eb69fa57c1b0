//! Card transactions from one seed: a stream of records in the order in which they arrive, some of them late, sent twice or malformed.
//!
//! The same settings give the same bytes on every machine: ChaCha for chance, integers for everything else (no `ln`, no `exp`, no hash map's
//! order). Memory is the tables of cards and merchants plus the records under way, both bounded; the number of events is not.
//! Not here: files and arguments (`main.rs`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// How many records may be under way at most; beyond it the oldest is sent early.
const UNDER_WAY_MAX: usize = 1 << 20;

/// What merchants sell; transactions name it by its place here.
pub(crate) const CATEGORIES: [&str; 8] = ["grocery", "fuel", "restaurant", "travel", "electronics", "pharmacy", "gaming", "jewelry"];
/// Typical amount of each category in cents.
const TYPICAL_CENTS: [u64; 8] = [3_200, 4_500, 2_400, 21_000, 15_000, 1_800, 2_900, 34_000];
/// Where merchants are.
pub(crate) const COUNTRIES: [&str; 6] = ["US", "GB", "DE", "FR", "BR", "JP"];

/// What to generate. Shares are parts of one.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How many distinct transactions; copies and malformed lines come on top.
    pub(crate) events: u64,
    /// How many cards; their use follows Zipf's law.
    pub(crate) cards: u32,
    /// How many merchants; their use follows Zipf's law too.
    pub(crate) merchants: u32,
    /// The seed of everything.
    pub(crate) seed: u64,
    /// Event time of the first transaction, in microseconds since the Unix epoch.
    pub(crate) start_us: i64,
    /// The time over which the transactions are spread.
    pub(crate) span_us: i64,
    /// Share of transactions that arrive too late for the watermark.
    pub(crate) late_share: f64,
    /// Share of transactions that arrive a second time.
    pub(crate) duplicate_share: f64,
    /// Malformed lines for every transaction.
    pub(crate) malformed_share: f64,
    /// Greatest disorder of what is not late: the watermark's delay.
    pub(crate) disorder_us: i64,
    /// Share of honest transactions that get a label; fraudulent ones all do.
    pub(crate) label_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            events: 1_000_000,
            cards: 100_000,
            merchants: 5_000,
            seed: 7,
            start_us: 1_704_067_200 * SECOND_US, // 2024-01-01 00:00:00 UTC
            span_us: 30 * DAY_US,
            late_share: 0.01,
            duplicate_share: 0.01,
            malformed_share: 0.001,
            disorder_us: 30 * SECOND_US,
            label_share: 0.05,
        }
    }
}

/// A card was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Number of the transaction, from 0.
    pub(crate) id: u64,
    /// Number of the card.
    pub(crate) card: u32,
    /// Number of the merchant.
    pub(crate) merchant: u32,
    /// Amount in cents.
    pub(crate) cents: u64,
    /// Whether the bank declined it.
    pub(crate) declined: bool,
    /// Whether the card was there, or only its number.
    pub(crate) online: bool,
    /// Whether it was fraud: the label, never part of the line.
    pub(crate) fraud: bool,
    /// Event time in microseconds since the Unix epoch.
    pub(crate) at_us: i64,
}

/// The holder disputed a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chargeback {
    /// The disputed transaction.
    pub(crate) transaction: u64,
    /// Its merchant.
    pub(crate) merchant: u32,
    /// Its amount in cents.
    pub(crate) cents: u64,
    /// Event time in microseconds since the Unix epoch.
    pub(crate) at_us: i64,
}

/// A merchant as it is from `at_us` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merchant {
    /// Number of the merchant.
    pub(crate) merchant: u32,
    /// Index into [`CATEGORIES`].
    pub(crate) category: u8,
    /// Index into [`COUNTRIES`].
    pub(crate) country: u8,
    /// Risk tier, 1 (low) to 3.
    pub(crate) tier: u8,
    /// Event time in microseconds since the Unix epoch.
    pub(crate) at_us: i64,
}

/// What is wrong with a malformed line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The line ends in the middle.
    Truncated,
    /// The amount is a word.
    AmountIsText,
    /// The card is missing, though NOT NULL.
    NoCard,
    /// The time is in no calendar.
    BadTime,
    /// The merchant's name holds a byte that is not UTF-8.
    NotUtf8,
}

const FAULTS: [Fault; 5] = [Fault::Truncated, Fault::AmountIsText, Fault::NoCard, Fault::BadTime, Fault::NotUtf8];

/// How a transaction is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// For the first time.
    First,
    /// Once more, equal in every byte.
    Copy,
    /// With a fault, beside the whole line.
    Malformed(Fault),
}

/// One record; records come in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// A line of the stream `merchants`.
    Merchant(Merchant),
    /// A line of the stream `transactions`.
    Transaction(Transaction, Sending),
    /// A line of the stream `chargebacks`.
    Chargeback(Chargeback),
    /// A transaction of the training set with its label; no stream has it.
    Label(Transaction),
}

/// What the lines of `transactions` must come to where each is judged against all before it, as a file's are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Lines.
    pub(crate) read: u64,
    /// Lines that become events.
    pub(crate) accepted: u64,
    /// Copies of accepted lines.
    pub(crate) duplicate: u64,
    /// Lines older than the greatest event time before them minus the disorder.
    pub(crate) late: u64,
    /// Malformed lines.
    pub(crate) rejected: u64,
}

/// Draws ranks by Zipf's law with exponent 1, in constant time: Walker's alias method on integer weights.
struct Zipf {
    keep: Vec<u32>,
    alias: Vec<u32>,
    step: u64,
    offset: u64,
}

impl Zipf {
    fn new(n: u32, rng: &mut ChaCha8Rng) -> Zipf {
        let n = n.max(1);
        let weights: Vec<u64> = (1..=u64::from(n)).map(|rank| (1_u64 << 40) / rank).collect();
        let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        // Weights scaled to an average of 2^32, so that a cell's share is a 32-bit threshold.
        let mut scaled: Vec<u64> =
            weights.iter().map(|w| ((u128::from(*w) * u128::from(n)) << 32).checked_div(total).unwrap_or(0) as u64).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..n).partition(|i| scaled[*i as usize] < 1 << 32);
        let mut keep = vec![u32::MAX; n as usize];
        let mut alias: Vec<u32> = (0..n).collect();
        while let (Some(lesser), Some(greater)) = (small.pop(), large.pop()) {
            keep[lesser as usize] = scaled[lesser as usize].min(u64::from(u32::MAX)) as u32;
            alias[lesser as usize] = greater;
            let left = scaled[greater as usize] - ((1 << 32) - scaled[lesser as usize]);
            scaled[greater as usize] = left;
            if left < 1 << 32 { small.push(greater) } else { large.push(greater) }
        }
        // A walk by a step without a common factor visits every number once: ranks become numbers without order.
        let n = u64::from(n);
        let mut step = (rng.next_u64() % n).max(1);
        while greatest_common_divisor(step, n) != 1 {
            step += 1;
        }
        Zipf { keep, alias, step, offset: rng.next_u64() % n }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> u32 {
        let bits = rng.next_u64();
        let n = self.keep.len() as u64;
        let cell = (((bits >> 32) * n) >> 32) as usize;
        let rank = if (bits as u32) <= self.keep[cell] { cell as u64 } else { u64::from(self.alias[cell]) };
        ((rank * self.step + self.offset) % n) as u32
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A share of one as a threshold for 32 random bits.
fn threshold(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64
}

fn chance(rng: &mut ChaCha8Rng, threshold: u64) -> bool {
    u64::from(rng.next_u32()) < threshold
}

fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A stolen card's next uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Theft {
    next_us: i64,
    card: u32,
    left: u32,
}

/// The records of one seed, one after the other.
pub(crate) struct Generator {
    settings: Settings,
    rng: ChaCha8Rng,
    cards: Zipf,
    merchants: Zipf,
    profiles: Vec<Merchant>,
    made: u64,
    clock_us: i64,
    thefts: BinaryHeap<Reverse<Theft>>,
    /// Records under way by arrival, then by the order in which they were made; the last number is the place in `records`.
    under_way: BinaryHeap<Reverse<(i64, u64, u32)>>,
    /// The records under way, apart, so that the heap moves little; `free` are the places to use again.
    records: Vec<Record>,
    free: Vec<u32>,
    sequence: u64,
    newest_us: Option<i64>,
    expected: Expected,
    late: u64,
    duplicate: u64,
    malformed: u64,
    labels: u64,
}

impl Generator {
    /// Starts at the first record.
    pub(crate) fn new(settings: Settings) -> Generator {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let cards = Zipf::new(settings.cards, &mut rng);
        let merchants = Zipf::new(settings.merchants, &mut rng);
        // Every merchant has a profile before the first transaction; one in four has another half-way.
        let mut profiles = Vec::new();
        for merchant in 0..settings.merchants.max(1) {
            let profile = Merchant {
                merchant,
                category: below(&mut rng, CATEGORIES.len() as u64) as u8,
                country: below(&mut rng, COUNTRIES.len() as u64) as u8,
                tier: 1 + (below(&mut rng, 10) / 4) as u8,
                at_us: settings.start_us - HOUR_US + i64::from(merchant % 3_600) * SECOND_US,
            };
            profiles.push(profile);
        }
        for merchant in 0..profiles.len() {
            if merchant % 4 == 0 {
                let tier = 1 + profiles[merchant].tier % 3;
                profiles.push(Merchant { tier, at_us: settings.start_us + settings.span_us / 2, ..profiles[merchant] });
            }
        }
        let (late, duplicate) = (threshold(settings.late_share), threshold(settings.duplicate_share));
        let (malformed, labels) = (threshold(settings.malformed_share), threshold(settings.label_share));
        let mut generator = Generator {
            clock_us: settings.start_us,
            rng,
            cards,
            merchants,
            profiles,
            made: 0,
            thefts: BinaryHeap::new(),
            under_way: BinaryHeap::new(),
            records: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            newest_us: None,
            expected: Expected::default(),
            late,
            duplicate,
            malformed,
            labels,
            settings,
        };
        for profile in 0..generator.profiles.len() {
            let profile = generator.profiles[profile];
            generator.send(profile.at_us, Record::Merchant(profile));
        }
        generator
    }

    /// What the lines so far must come to in a file that is read line by line.
    pub(crate) fn expected(&self) -> Expected {
        self.expected
    }

    /// What a merchant sells.
    pub(crate) fn category(&self, merchant: u32) -> &'static str {
        self.profiles.get(merchant as usize).map_or(CATEGORIES[0], |profile| CATEGORIES[profile.category as usize])
    }

    fn send(&mut self, arrival_us: i64, record: Record) {
        let place = if let Some(place) = self.free.pop() {
            self.records[place as usize] = record;
            place
        } else {
            self.records.push(record);
            self.records.len() as u32 - 1
        };
        self.under_way.push(Reverse((arrival_us, self.sequence, place)));
        self.sequence += 1;
    }

    /// Makes the next transaction and puts under way all that follows from it.
    fn make(&mut self) {
        let gap = (self.settings.span_us / i64::try_from(self.settings.events.max(1)).unwrap_or(i64::MAX)).max(1);
        self.clock_us += 1 + below(&mut self.rng, 2 * gap as u64) as i64;
        let transaction = self.transaction();
        self.made += 1;

        let at = transaction.at_us;
        let arrival = if chance(&mut self.rng, self.late) {
            at + self.settings.disorder_us + MINUTE_US + below(&mut self.rng, HOUR_US as u64) as i64
        } else {
            at + below(&mut self.rng, self.settings.disorder_us.max(1) as u64) as i64
        };
        self.send(arrival, Record::Transaction(transaction, Sending::First));
        if chance(&mut self.rng, self.duplicate) {
            // Within the disorder where the original is, so that only the copy of a late line is late too.
            let room_us = (at + self.settings.disorder_us - arrival).max(1);
            let again = arrival + below(&mut self.rng, room_us as u64) as i64;
            self.send(again, Record::Transaction(transaction, Sending::Copy));
        }
        if chance(&mut self.rng, self.malformed) {
            let fault = FAULTS[below(&mut self.rng, FAULTS.len() as u64) as usize];
            self.send(arrival, Record::Transaction(transaction, Sending::Malformed(fault)));
        }
        let regretted = below(&mut self.rng, 2_000) == 0;
        let disputed = !transaction.declined && (transaction.fraud || regretted);
        if disputed {
            let Transaction { id, merchant, cents, .. } = transaction;
            let at_us = at + HOUR_US + below(&mut self.rng, 2 * DAY_US as u64) as i64;
            self.send(at_us, Record::Chargeback(Chargeback { transaction: id, merchant, cents, at_us }));
        }
        if transaction.fraud || chance(&mut self.rng, self.labels) {
            self.send(at, Record::Label(transaction));
        }
    }

    fn transaction(&mut self) -> Transaction {
        let id = self.made;
        let at_us = self.clock_us;
        if let Some(Reverse(theft)) = self.thefts.peek().copied()
            && theft.next_us <= at_us
        {
            self.thefts.pop();
            if theft.left > 1 {
                let next_us = at_us + 20 * SECOND_US + below(&mut self.rng, 10 * MINUTE_US as u64) as i64;
                self.thefts.push(Reverse(Theft { next_us, left: theft.left - 1, ..theft }));
            }
            let merchant = self.merchants.draw(&mut self.rng);
            let cents = 3 * self.amount(merchant) + 5_000;
            let declined = below(&mut self.rng, 4) == 0;
            return Transaction { id, card: theft.card, merchant, cents, declined, online: true, fraud: true, at_us };
        }
        let card = self.cards.draw(&mut self.rng);
        let merchant = self.merchants.draw(&mut self.rng);
        let cents = self.amount(merchant);
        let bits = self.rng.next_u32();
        if bits.is_multiple_of(2_048) && self.thefts.len() < 10_000 {
            let next_us = at_us + below(&mut self.rng, 2 * HOUR_US as u64) as i64;
            let left = 2 + below(&mut self.rng, 6) as u32;
            self.thefts.push(Reverse(Theft { next_us, card, left }));
        }
        Transaction {
            id,
            card,
            merchant,
            cents,
            declined: (bits >> 11).is_multiple_of(64),
            online: (bits >> 17).is_multiple_of(3),
            fraud: false,
            at_us,
        }
    }

    /// An amount in cents with a long tail: the typical one times the product of three uniform numbers with mean 1.
    fn amount(&mut self, merchant: u32) -> u64 {
        let bits = self.rng.next_u64();
        let [a, b, c] = [bits & 0xffff, (bits >> 16) & 0xffff, (bits >> 32) & 0xffff];
        let typical = TYPICAL_CENTS[self.profiles[merchant as usize].category as usize];
        let product = ((((typical * 8 * a) >> 16) * b) >> 16) * c;
        100 + (product >> 16)
    }

    /// Counts a line as the pipeline does: validate, lateness, deduplicate.
    fn count(&mut self, transaction: &Transaction, sending: Sending) {
        self.expected.read += 1;
        if matches!(sending, Sending::Malformed(_)) {
            self.expected.rejected += 1;
            return;
        }
        let late = self.newest_us.is_some_and(|newest_us| transaction.at_us < newest_us - self.settings.disorder_us);
        self.newest_us = self.newest_us.max(Some(transaction.at_us));
        // A copy arrives after its original, so the original of a copy in time was in time.
        match (late, sending) {
            (true, _) => self.expected.late += 1,
            (false, Sending::Copy) => self.expected.duplicate += 1,
            (false, _) => self.expected.accepted += 1,
        }
    }
}

impl Iterator for Generator {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        // Whatever is made from now on arrives at `clock_us` or later.
        while self.made < self.settings.events
            && self.under_way.len() < UNDER_WAY_MAX
            && self.under_way.peek().is_none_or(|Reverse((arrival_us, ..))| *arrival_us > self.clock_us)
        {
            self.make();
        }
        let Reverse((_, _, place)) = self.under_way.pop()?;
        self.free.push(place);
        let record = self.records[place as usize];
        if let Record::Transaction(transaction, sending) = record {
            self.count(&transaction, sending);
        }
        Some(record)
    }
}

/// Writes records as JSON lines.
#[derive(Debug, Default)]
pub(crate) struct JsonLines {
    day: Option<i64>,
    date: [u8; 10],
}

impl JsonLines {
    /// Appends a transaction's line, with its line feed.
    pub(crate) fn transaction(&mut self, out: &mut Vec<u8>, transaction: &Transaction, category: &str, fault: Option<Fault>) {
        let start = out.len();
        out.extend_from_slice(b"{\"txn_id\":\"t");
        digits(out, transaction.id, 10);
        if fault != Some(Fault::NoCard) {
            out.extend_from_slice(b"\",\"card_id\":\"c");
            digits(out, u64::from(transaction.card), 7);
        }
        out.extend_from_slice(b"\",\"merchant_id\":\"m");
        if fault == Some(Fault::NotUtf8) {
            out.push(0xff);
        }
        digits(out, u64::from(transaction.merchant), 6);
        out.extend_from_slice(b"\",\"category\":\"");
        out.extend_from_slice(category.as_bytes());
        out.extend_from_slice(b"\",\"amount\":");
        if fault == Some(Fault::AmountIsText) {
            out.extend_from_slice(b"\"much\"");
        } else {
            cents(out, transaction.cents);
        }
        out.extend_from_slice(if transaction.declined { b",\"status\":\"declined\"" } else { b",\"status\":\"approved\"" });
        out.extend_from_slice(if transaction.online { b",\"online\":true,\"ts\":\"" } else { b",\"online\":false,\"ts\":\"" });
        if fault == Some(Fault::BadTime) {
            out.extend_from_slice(b"2024-13-41T25:61:00Z");
        } else {
            self.timestamp(out, transaction.at_us);
        }
        out.extend_from_slice(b"\"}");
        if fault == Some(Fault::Truncated) {
            let length = out.len() - start;
            out.truncate(start + length / 2);
        }
        out.push(b'\n');
    }

    /// Appends a chargeback's line, with its line feed.
    pub(crate) fn chargeback(&mut self, out: &mut Vec<u8>, chargeback: &Chargeback) {
        out.extend_from_slice(b"{\"txn_id\":\"t");
        digits(out, chargeback.transaction, 10);
        out.extend_from_slice(b"\",\"merchant_id\":\"m");
        digits(out, u64::from(chargeback.merchant), 6);
        out.extend_from_slice(b"\",\"amount\":");
        cents(out, chargeback.cents);
        out.extend_from_slice(b",\"ts\":\"");
        self.timestamp(out, chargeback.at_us);
        out.extend_from_slice(b"\"}\n");
    }

    /// Appends a merchant's line, with its line feed.
    pub(crate) fn merchant(&mut self, out: &mut Vec<u8>, merchant: &Merchant) {
        out.extend_from_slice(b"{\"merchant_id\":\"m");
        digits(out, u64::from(merchant.merchant), 6);
        out.extend_from_slice(b"\",\"category\":\"");
        out.extend_from_slice(CATEGORIES[usize::from(merchant.category) % CATEGORIES.len()].as_bytes());
        out.extend_from_slice(b"\",\"country\":\"");
        out.extend_from_slice(COUNTRIES[usize::from(merchant.country) % COUNTRIES.len()].as_bytes());
        out.extend_from_slice(b"\",\"tier\":");
        out.push(b'0' + merchant.tier);
        out.extend_from_slice(b",\"ts\":\"");
        self.timestamp(out, merchant.at_us);
        out.extend_from_slice(b"\"}\n");
    }

    /// `2024-01-31T23:59:59.123456Z`
    fn timestamp(&mut self, out: &mut Vec<u8>, at_us: i64) {
        let day = at_us.div_euclid(DAY_US);
        if self.day != Some(day) {
            self.day = Some(day);
            self.date = date(day);
        }
        let in_day = at_us.rem_euclid(DAY_US) as u64;
        let second = in_day / SECOND_US as u64;
        out.extend_from_slice(&self.date);
        let mut text = *b"T00:00:00.000000Z";
        put(&mut text[1..3], second / 3_600);
        put(&mut text[4..6], second / 60 % 60);
        put(&mut text[7..9], second % 60);
        put(&mut text[10..16], in_day % SECOND_US as u64);
        out.extend_from_slice(&text);
    }
}

/// Fills a slice with the last digits of a number.
fn put(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Appends a number with at least so many digits.
fn digits(out: &mut Vec<u8>, number: u64, least: usize) {
    let mut text = [b'0'; 20];
    put(&mut text, number);
    let zeros = text.iter().take_while(|digit| **digit == b'0').count();
    out.extend_from_slice(&text[zeros.min(20 - least)..]);
}

fn cents(out: &mut Vec<u8>, cents: u64) {
    digits(out, cents / 100, 1);
    out.push(b'.');
    digits(out, cents % 100, 2);
}

/// The calendar's name of a day since the Unix epoch: Hinnant's `civil_from_days`, for years 0 to 9999.
fn date(day: i64) -> [u8; 10] {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = *b"0000-00-00";
    put(&mut text[0..4], year as u64);
    put(&mut text[5..7], month as u64);
    put(&mut text[8..10], day_of_month as u64);
    text
}
