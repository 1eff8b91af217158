//! Draws solved examples as lm-evaluation-harness does: Python's `random.Random(seed).sample`, one generator for a whole task.
//!
//! The generator is MT19937 (Matsumoto and Nishimura 1998) seeded by array, as CPython does for integers.

const N: usize = 624;
const M: usize = 397;

/// Python's generator.
pub(crate) struct PythonRandom {
    state: [u32; N],
    at: usize,
}

impl PythonRandom {
    /// `random.Random(seed)`.
    pub(crate) fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key: &[u32] = if high == 0 { &[low] } else { &[low, high] };
        let mut state = [0_u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = previous.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] =
                (state[i] ^ previous.wrapping_mul(1_664_525)).wrapping_add(key[j]).wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let previous = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = (state[i] ^ previous.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, at: N }
    }

    fn next(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number below `n`, which must lie in `1..=u32::MAX`.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let r = (self.next() >> (32 - bits.clamp(1, 32))) as usize;
            if r < n {
                return r;
            }
        }
    }

    /// `sample(range(n), k)`: `k` distinct indices below `n`; fewer where `n` is smaller.
    pub(crate) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let k = k.min(n);
        let mut set_size = 21_usize;
        if k > 5 {
            let mut power = 1_usize;
            while power < k.saturating_mul(3) {
                power = power.saturating_mul(4);
            }
            set_size = set_size.saturating_add(power);
        }
        let mut out = Vec::with_capacity(k);
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let j = self.below(n - i);
                out.push(pool[j]);
                pool[j] = pool[n - i - 1];
            }
        } else {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..k {
                let mut j = self.below(n);
                while !seen.insert(j) {
                    j = self.below(n);
                }
                out.push(j);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::PythonRandom;

    /// Pairs of (population, sample size), drawn one after the other from one generator; the answers are CPython 3.11's.
    #[test]
    fn samples_are_cpythons() {
        let expected: Vec<(u64, Vec<(usize, Vec<usize>)>)> =
            serde_json::from_str(include_str!("../../tests/golden/python_random_sample.json")).unwrap();
        assert!(expected.len() >= 3);
        for (seed, draws) in expected {
            let mut random = PythonRandom::new(seed);
            for (n, sample) in draws {
                assert_eq!(random.sample(n, sample.len()), sample, "seed {seed}, n {n}");
            }
        }
    }
}
