from labeling.locators.grounding_dino import GroundingDinoLocator


def load_locator(path, *, revision, device, dtype, **settings):
    return GroundingDinoLocator.from_pretrained(path, revision=revision, device=device, **settings)
