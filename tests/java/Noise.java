package oracle;

import java.nio.file.*;
import org.deeplearning4j.nn.conf.MultiLayerConfiguration;
import org.deeplearning4j.nn.multilayer.MultiLayerNetwork;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.factory.Nd4j;

/** Gradient and score of networks with noise, from their seeds. */
final class Noise {
    /** Arguments: folders with conf.json, in.npy and labels.npy; each gets gradient.npy, and a line with its score and the generator's last state. */
    public static void main(String[] folders) throws Exception {
        Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
        for (String folder : folders) {
            Path dir = Paths.get(folder);
            MultiLayerNetwork net = new MultiLayerNetwork(MultiLayerConfiguration.fromJson(Files.readString(dir.resolve("conf.json"))));
            net.init();
            Nd4j.getRandom().setSeed(123);
            net.setInput(Npy.read(dir.resolve("in.npy")));
            net.setLabels(Npy.read(dir.resolve("labels.npy")));
            net.computeGradientAndScore();
            Npy.write(dir.resolve("gradient.npy"), net.getFlattenedGradients());
            System.out.println("CASE " + dir.getFileName() + " " + net.score() + " " + ((org.nd4j.linalg.cpu.nativecpu.rng.CpuNativeRandom) Nd4j.getRandom()).nodeState());
        }
    }
}
