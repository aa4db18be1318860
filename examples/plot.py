"""A figure to look at: three damped waves and their envelope. Needs matplotlib and numpy only.

xssh user@host python plot.py
"""

import platform

import matplotlib.pyplot as plt
import numpy as np

TITLE = "Damped waves, drawn by " + platform.node()

time = np.linspace(0, 12, 1200)
envelope = np.exp(-time / 5)

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
figure.canvas.manager.set_window_title(TITLE)

axes.fill_between(time, -envelope, envelope, color="0.93", label="envelope")
for frequency, colour in ((0.5, "#1b6ca8"), (0.8, "#e07a1f"), (1.3, "#3a8f5c")):
    wave = envelope * np.cos(2 * np.pi * frequency * time)
    axes.plot(time, wave, color=colour, linewidth=1.8, label=f"{frequency} Hz")

axes.set_title("Computed there, shown here")
axes.set_xlabel("time (s)")
axes.set_ylabel("displacement (cm)")
axes.set_xlim(0, 12)
axes.grid(alpha=0.3)
axes.legend(loc="upper right", ncols=2)

plt.show()
