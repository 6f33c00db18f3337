// SPDX-License-Identifier: GPL-2.0

//! Memory that notices when it is used after it was freed.

use crate::alloc::AllocError;
use crate::alloc::Flags;
use loom::cell::UnsafeCell;
use loom::sync::atomic::fence;
use loom::sync::atomic::AtomicUsize;
use std::alloc::Layout;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;

thread_local! {
    /// What was freed in the execution that runs on this thread.
    static FREED: RefCell<Vec<(NonNull<u8>, Layout)>> = RefCell::default();
}

/// Gives back what was freed in the last execution.
pub(crate) fn forget() {
    for (memory, layout) in FREED.take() {
        // SAFETY: It was kept with its layout, by its only owner.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}

/// Keeps the memory of a box to the end of the execution. What is in it was dropped.
fn keep<T: ?Sized>(memory: Box<T>) {
    let layout = Layout::for_value(&*memory);
    let memory = NonNull::from(Box::leak(memory));
    FREED.with_borrow_mut(|freed| freed.push((memory.cast(), layout)));
}

/// Memory that is there until it is freed. The checker lets no two threads do these without an order between them.
struct Alive(UnsafeCell<()>);

impl Alive {
    fn new() -> Self {
        Self(UnsafeCell::new(()))
    }

    /// A look at the memory.
    fn look(&self) {
        self.0.with(|_| ());
    }

    /// The end of it.
    fn free(&self) {
        self.0.with_mut(|_| ());
    }
}

/// A vector.
pub struct KVec<T> {
    items: ManuallyDrop<Vec<T>>,
    alive: Alive,
}

/// The same: where the memory comes from is of no matter here.
pub type KVVec<T> = KVec<T>;

// SAFETY: The checker runs all threads of a model on one of the machine, one at a time.
unsafe impl<T> Send for KVec<T> {}
// SAFETY: As above.
unsafe impl<T> Sync for KVec<T> {}

impl<T> KVec<T> {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn with_capacity(capacity: usize, _flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            items: ManuallyDrop::new(Vec::with_capacity(capacity)),
            alive: Alive::new(),
        })
    }

    /// Adds an item.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn push(&mut self, item: T, _flags: Flags) -> Result<(), AllocError> {
        self.items.push(item);
        Ok(())
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.alive.look();
        &self.items
    }
}

impl<T> Drop for KVec<T> {
    fn drop(&mut self) {
        self.alive.free();
        // SAFETY: This is the last use of the vector, and its items are not dropped again.
        let mut items = unsafe { ManuallyDrop::take(&mut self.items) }.into_boxed_slice();
        let all: *mut [T] = &raw mut *items;
        // SAFETY: As above.
        unsafe { std::ptr::drop_in_place(all) };
        keep(items);
    }
}

/// A box.
pub struct KBox<T> {
    content: NonNull<Boxed<T>>,
}

#[repr(C)]
struct Boxed<T> {
    content: ManuallyDrop<T>,
    alive: Alive,
}

// SAFETY: As for `KVec`.
unsafe impl<T> Send for KBox<T> {}
// SAFETY: As for `KVec`.
unsafe impl<T> Sync for KBox<T> {}

impl<T> KBox<T> {
    /// Puts a value into a box.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn new(content: T, _flags: Flags) -> Result<Self, AllocError> {
        let boxed = Box::new(Boxed {
            content: ManuallyDrop::new(content),
            alive: Alive::new(),
        });
        Ok(Self {
            content: NonNull::from(Box::leak(boxed)),
        })
    }

    /// Gives up the box, but not the value.
    pub fn into_raw(this: Self) -> *mut T {
        ManuallyDrop::new(this).content.as_ptr().cast()
    }

    /// Takes the box back.
    ///
    /// # Safety
    ///
    /// `raw` comes from [`Self::into_raw`], and this is the only box that is made of it.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        Self {
            // SAFETY: By the requirements of this function.
            content: unsafe { NonNull::new_unchecked(raw.cast()) },
        }
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The memory is kept to the end of the execution.
        let boxed = unsafe { self.content.as_ref() };
        boxed.alive.look();
        &boxed.content
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: The box was leaked when this was made, and this is its only owner.
        let mut boxed = unsafe { Box::from_raw(self.content.as_ptr()) };
        boxed.alive.free();
        // SAFETY: The content is not used any more.
        unsafe { ManuallyDrop::drop(&mut boxed.content) };
        keep(boxed);
    }
}

/// What is counted.
#[repr(C)]
struct Counted<T> {
    content: ManuallyDrop<T>,
    count: AtomicUsize,
}

/// A value with a count of its users: `refcount_t` orders nothing when it is increased, and what was done before it was
/// decreased comes before the value is dropped.
pub struct Arc<T>(NonNull<Counted<T>>);

// SAFETY: As for `KVec`.
unsafe impl<T> Send for Arc<T> {}
// SAFETY: As for `KVec`.
unsafe impl<T> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// The only user of a value.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn new(content: T, _flags: Flags) -> Result<Self, AllocError> {
        let counted = Box::new(Counted {
            content: ManuallyDrop::new(content),
            count: AtomicUsize::new(1),
        });
        Ok(Self(NonNull::from(Box::leak(counted))))
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: The memory is kept to the end of the execution.
        unsafe { self.0.as_ref() }
    }

    /// Gives up the object, but not its count.
    pub fn into_raw(self) -> *const T {
        ManuallyDrop::new(self).0.as_ptr().cast()
    }

    /// Takes the count back.
    ///
    /// # Safety
    ///
    /// `raw` comes from [`Self::into_raw`], and its count is for this object alone.
    pub unsafe fn from_raw(raw: *const T) -> Self {
        // SAFETY: By the requirements of this function.
        Self(unsafe { NonNull::new_unchecked(raw.cast_mut().cast()) })
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        let before = self.counted().count.fetch_add(1, Relaxed);
        assert_ne!(before, 0, "a value is used that has no user any more");
        Self(self.0)
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().content
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        let before = self.counted().count.fetch_sub(1, Release);
        assert_ne!(
            before, 0,
            "a value is given up more often than it was taken"
        );
        if before > 1 {
            return;
        }
        fence(Acquire);
        // SAFETY: The box was leaked when the value was made, and this was its last user.
        let mut counted = unsafe { Box::from_raw(self.0.as_ptr()) };
        // SAFETY: The content is not used any more.
        unsafe { ManuallyDrop::drop(&mut counted.content) };
        keep(counted);
    }
}

/// A value that somebody else keeps in an [`Arc`].
pub struct ArcBorrow<'a, T>(ManuallyDrop<Arc<T>>, PhantomData<&'a T>);

impl<T> ArcBorrow<'_, T> {
    /// Borrows.
    ///
    /// # Safety
    ///
    /// `raw` comes from [`Arc::into_raw`], and its count is not given back before the lifetime ends.
    pub unsafe fn from_raw(raw: *const T) -> Self {
        // SAFETY: By the requirements of this function. The count that this object has not is not given up.
        let borrowed = ManuallyDrop::new(unsafe { Arc::from_raw(raw) });
        Self(borrowed, PhantomData)
    }
}

impl<T> From<ArcBorrow<'_, T>> for Arc<T> {
    fn from(borrow: ArcBorrow<'_, T>) -> Self {
        Self::clone(&borrow.0)
    }
}
