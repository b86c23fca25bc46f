// Seeded chance: the same seed gives every actor the same choices (when they meet is up to the machine).

/// mulberry32: small, and good enough to choose faults with.
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }
  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  /// From low to high, high not included.
  whole(low, high) {
    return low + Math.floor(this.next() * (high - low));
  }
  pick(list) {
    return list[this.whole(0, list.length)];
  }
  /// One with a stream of its own.
  fork() {
    return new Random(Math.floor(this.next() * 4294967296));
  }
}
