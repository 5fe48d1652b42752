"""Where rows and their images are stored, and how they are opened. What a row means is ``rewardlib.rows``'."""
